"""Sentences about the kubeconfig, its credentials and the connection. Each is one line."""


def kubeconfig_unusable(path: str, cause: str) -> str:
    """Return the error for a kubeconfig that is not valid. `cause` names the field."""
    return f"the kubeconfig {path} cannot be used: {cause}; correct the file, or set KUBECONFIG to a valid kubeconfig"


def kubeconfig_missing(path: str) -> str:
    """Return the error for a file of --kubeconfig that does not exist."""
    return f"the kubeconfig {path} does not exist: correct --kubeconfig"


def no_kubeconfig(paths: str) -> str:
    """Return the error if no kubeconfig exists. `paths`: where the plugin looked."""
    return f"no kubeconfig is found in {paths}: set KUBECONFIG, or use --kubeconfig"


def no_context(paths: str) -> str:
    """Return the error for kubeconfigs without a current context."""
    return f"the kubeconfig {paths} has no current-context: use --context, or run `kubectl config use-context`"


def entry_missing(kind: str, name: str, named_by: str, paths: str) -> str:
    """Return the error for an entry that no kubeconfig has. `named_by`: the flag or field that names the entry."""
    return f"the {kind} {name}, named by {named_by}, is not in the kubeconfig {paths}"


def impersonation_without_user() -> str:
    """Return the error for groups or a UID without a user to impersonate."""
    return "groups or a UID are impersonated without a user: use --as"


def duration_invalid(text: str) -> str:
    """Return the error for a time such as 5x."""
    return f"{text} is not a time: use seconds, or a number with a unit, such as 30s, 2m or 1h"


def certificate_unusable(source: str) -> str:
    """Return the error for a client certificate that cannot be loaded. `source`: where it is from."""
    return (
        f"the client certificate of {source} cannot be used: it and its key must be in PEM, fit, and have no password"
    )


# -- causes: fields of a kubeconfig -----------------------------------------------------------------------------------


def not_a(place: str, kind: str) -> str:
    """Return the cause for a field with a wrong type. `kind`: such as `string`."""
    return f"{place} is not a {kind}"


def not_base64(place: str) -> str:
    """Return the cause for a field whose data cannot be decoded."""
    return f"{place} is not base64"


def unreadable_file(place: str, path: str, cause: str) -> str:
    """Return the cause for a field that names a file that cannot be read."""
    return f"{place} names {path}: {cause}"


def field_missing(place: str) -> str:
    """Return the cause for a required field that is absent or empty."""
    return f"{place} is missing"


def duplicate(place: str) -> str:
    """Return the cause for two entries with one name in a file."""
    return f"{place} is there twice"


def unknown_value(place: str, value: str, allowed: str) -> str:
    """Return the cause for a value that is none of the allowed ones."""
    return f"{place} is {value}, not {allowed}"


def excludes(place: str, other: str) -> str:
    """Return the cause for two fields that exclude each other."""
    return f"{place} and {other} exclude each other"


def provider_unsupported(place: str, name: str) -> str:
    """Return the cause for an auth provider without an exec plugin."""
    return f"{place} is {name}, which needs an exec plugin"


def id_token_expired(place: str) -> str:
    """Return the cause for an expired ID token of the auth provider oidc."""
    return f"{place} has expired; any kubectl command renews it"


# -- exec plugins -----------------------------------------------------------------------------------------------------


def plugin_not_found(command: str, hint: str) -> str:
    """Return the error for an exec plugin that is not installed. `hint`: from the kubeconfig, may be empty."""
    return f"the exec plugin {command} of the kubeconfig is not found" + (f": {hint}" if hint else "")


def plugin_failed(command: str, code: int) -> str:
    """Return the error for an exec plugin that ended with a failure. Its own words are on stderr already."""
    return f"the exec plugin {command} of the kubeconfig failed with exit code {code}"


def plugin_answer_unusable(command: str, cause: str) -> str:
    """Return the error for an exec plugin whose answer has no credentials."""
    return f"the exec plugin {command} of the kubeconfig gave no credentials: {cause}"


def plugin_needs_terminal(command: str) -> str:
    """Return the error for an exec plugin that asks questions, without a terminal."""
    return f"the exec plugin {command} of the kubeconfig needs a terminal: run the command in a terminal"
