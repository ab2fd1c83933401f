"""The benchmarks of everserve: servers side by side under the same load. See README.md here."""
