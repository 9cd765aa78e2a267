"""`python -m negmeta_utils.studies.kernel`: IPython's kernel without what users and sites add to
it."""

from ipykernel.kernelapp import IPKernelApp
from IPython.core import application


def main() -> None:
    for folders in (application.ENV_CONFIG_DIRS, application.SYSTEM_CONFIG_DIRS):
        folders.clear()  # of configuration and start-up files, beside those in IPYTHONDIR
    IPKernelApp.launch_instance()


if __name__ == "__main__":
    main()
