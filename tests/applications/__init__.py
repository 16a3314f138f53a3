"""Manifests of real applications, from a folder of the user: each node under them is drained in turn.

`python -m applications FOLDER` starts a control plane with simulated kubelets for each application, and prints a table.
Nothing of the folder is kept.
"""
