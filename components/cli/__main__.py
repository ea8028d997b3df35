"""`python -m components.cli`: the stages and the commands around them, without those of Kubeflow."""

from components.cli.main import main

main()
