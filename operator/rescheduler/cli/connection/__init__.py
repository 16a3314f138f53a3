"""The connection to the cluster that kubectl talks to.

kubeconfig files are merged, and credentials are found, by the rules of kubectl 1.37 (client-go, `tools/clientcmd`).
The modules import `urllib3` and `yaml` only: the whole `kubernetes` client would double the time to the first output.
Its loader also takes the current context of the last file, refuses empty files, and connects without credentials if an
exec plugin fails. Never here: knowledge of Kubernetes objects.
"""
