"""`python -m litmus` is `litmus`."""

from __future__ import annotations

from litmus.cli import main

if __name__ == "__main__":
    main()
