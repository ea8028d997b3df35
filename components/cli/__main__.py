"""`python -m components.cli`: the stages and the commands around them, without the Kubeflow commands."""

from components.cli.main import main

main()
