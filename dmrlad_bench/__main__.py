"""`python -m dmrlad_bench`."""

from dmrlad_bench.cli import main

if __name__ == "__main__":
    main()
