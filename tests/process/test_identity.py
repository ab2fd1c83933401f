"""``process.identity``: to become another user for good, in a process of its own."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys

import pytest

from everserve.errors import OptionError
from everserve.process.identity import Identity

NOBODY = pwd.getpwnam("nobody")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_no_name_is_no_identity() -> None:
    assert Identity.of(None, None) is None


def test_names_and_numbers() -> None:
    group = grp.getgrgid(NOBODY.pw_gid).gr_name
    whole = Identity.of("nobody", group)
    assert whole is not None
    assert (whole.user, whole.group) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert whole == Identity.of("nobody", None) == Identity.of(str(NOBODY.pw_uid), None)
    assert Identity.of("54321", "54322") == Identity(54321, 54322, (54322,))
    assert Identity.of(None, "54322") == Identity(os.geteuid(), 54322, (54322,))


@pytest.mark.parametrize(
    ("user", "group", "words"),
    [
        ("no-such-user", None, "no user 'no-such-user'"),
        ("54321", None, "give its group too"),
        ("99999999999", "0", "no user '99999999999'"),
        ("nobody", "no-such-group", "no group 'no-such-group'"),
        ("nobody", "99999999999", "no group '99999999999'"),
    ],
)
def test_unknown_names(user: str, group: str | None, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Identity.of(user, group)


def test_the_own_identity_is_assumed_at_once() -> None:
    Identity(os.geteuid(), os.getegid(), (os.getegid(),)).assume()


PROGRAM = """
import os, sys
from everserve.process.identity import Identity
identity = Identity.of(*sys.argv[1:3])
given = open("given", "w")
identity.give(["given"])
identity.assume()
print(os.getresuid(), os.getresgid(), os.getgroups(), os.fstat(given.fileno()).st_uid)
for call in (os.setuid, os.setgid):
    try:
        call(0)
    except PermissionError:
        print("for good")
try:
    Identity.of("54321", "54321").assume()
except PermissionError as error:
    print(error)
"""


@needs_root
def test_it_is_for_good(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "nobody", "54321"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        cwd=str(tmp_path),
    )
    user = NOBODY.pw_uid
    first, *rest = done.stdout.splitlines()
    groups = sorted(os.getgrouplist("nobody", 54321))
    assert first == f"{(user,) * 3} {(54321,) * 3} {groups} {user}"
    assert rest[:2] == ["for good"] * 2
    assert "only root can become another one" in rest[2]


KEEPING = """
import ctypes, os
from everserve.process.identity import Identity
SECBIT_NO_SETUID_FIXUP, PR_SET_SECUREBITS = 4, 28  # capabilities(7)
assert ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0
try:
    Identity.of("nobody", None).assume()
except PermissionError as error:
    print(error)
"""


@needs_root
def test_a_process_that_keeps_the_rights_of_root_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KEEPING], capture_output=True, text=True, timeout=50, check=True
    )
    assert "could become root again" in done.stdout
