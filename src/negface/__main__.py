"""``python -m negface`` is the ``negface`` command."""

from negface.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
