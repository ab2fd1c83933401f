"""Run the tests of programs that stand on `socketserver`, with everserve in its place: `make programs`.

`programs.toml` lists the programs and where they may differ. Each program's sdist is fetched into a
cache and installed in an environment of its own (`cache`). Its tests run on the standard library and
on everserve, in several strategies (`suites`). The outcomes are compared (`comparison`), and printed
(`table`). The modules of `inside` are imported by the interpreters that run the tests.
"""
