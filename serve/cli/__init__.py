"""The `tarsia` command. Importing it costs nothing: each command imports what it needs when it runs."""

import sys


def main() -> None:
    """Entry point: runs the command line; one line and exit code 1 for every error a user can mend."""
    from serve.cli.app import app
    from serve.cli.output import fail

    try:
        app()
    except BrokenPipeError:
        # The reader (`| head`) left; nobody is there to hear of it.
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        fail(error)
