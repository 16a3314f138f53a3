"""Read and merge kubeconfig files, and choose a context, as kubectl does.

The first file that has an entry wins. Relative paths are relative to the file that names them. Empty names and missing
files of KUBECONFIG are skipped; the file of --kubeconfig must exist, and is then the only one.
"""

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rescheduler.cli.connection import messages
from rescheduler.cli.errors import PluginError


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # the one in C is ten times as fast
    """Reads dates as strings: a context may have the name 2026-01-01."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name is PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True)
class ConnectionFlags:
    """Flags of the command line that choose a cluster and a user. Empty: not given."""

    kubeconfig: str = ""
    context: str = ""
    cluster: str = ""
    user: str = ""
    impersonated_user: str = ""
    impersonated_uid: str = ""
    impersonated_groups: tuple[str, ...] = ()
    request_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping in a kubeconfig.

    Attributes:
        file: path of the kubeconfig, for relative paths and for errors.
        place: where the mapping is, such as `users[admin].user`.
    """

    file: Path = Path()
    place: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def error(self, cause: str) -> PluginError:
        """Return the error for a field of this file."""
        return PluginError(messages.kubeconfig_unusable(str(self.file), cause))

    def name_of(self, name: str) -> str:
        """Return the place of a field."""
        return f"{self.place}.{name}" if self.place else name

    def value(self, name: str, kind: type, default: Any) -> Any:
        """Return a field; the default if it is absent or null. Raises PluginError if it has another type."""
        found = self.fields.get(name)
        if found is None:
            return default
        if not isinstance(found, kind):
            names = {str: "string", bool: "boolean", list: "list", dict: "mapping"}
            raise self.error(messages.not_a(self.name_of(name), names[kind]))
        return found

    def text(self, name: str) -> str:
        """Return a string, empty if it is absent."""
        return str(self.value(name, str, ""))

    def required_text(self, name: str) -> str:
        """Return a string. Raises PluginError if it is absent or empty."""
        if not (found := self.text(name)):
            raise self.error(messages.field_missing(self.name_of(name)))
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings, empty if it is absent."""
        found = self.value(name, list, [])
        if not all(isinstance(item, str) for item in found):
            raise self.error(messages.not_a(self.name_of(name), "list of strings"))
        return tuple(found)

    def section(self, name: str) -> "Section | None":
        """Return a mapping; None if it is absent."""
        found = self.value(name, dict, None)
        return None if found is None else Section(self.file, self.name_of(name), found)

    def sections(self, name: str) -> Iterator["Section"]:
        """Yield the mappings of a list."""
        for number, found in enumerate(self.value(name, list, [])):
            place = f"{self.name_of(name)}[{number}]"
            if not isinstance(found, dict):
                raise self.error(messages.not_a(place, "mapping"))
            yield Section(self.file, place, found)

    def path(self, name: str) -> Path | None:
        """Return a path, relative to the folder of the kubeconfig; None if it is absent."""
        found = self.text(name)
        return self.file.absolute().parent / found if found else None

    def read_file(self, name: str) -> bytes:
        """Return the content of the file that a field names; empty if the field is absent. Raises PluginError."""
        if (path := self.path(name)) is None:
            return b""
        try:
            return path.read_bytes()
        except OSError as error:
            cause = error.strerror or str(error)
            raise self.error(messages.unreadable_file(self.name_of(name), str(path), cause)) from error

    def data_or_file(self, name: str) -> bytes:
        """Return the decoded field `<name>-data`, or else the content of the file that the field names."""
        data = self.text(f"{name}-data")
        if not data:
            return self.read_file(name)
        try:
            return base64.b64decode(data)
        except binascii.Error as error:
            raise self.error(messages.not_base64(self.name_of(f"{name}-data"))) from error


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """Merged kubeconfig files."""

    paths: tuple[Path, ...]
    contexts: Mapping[str, Section]
    clusters: Mapping[str, Section]
    users: Mapping[str, Section]
    current_context: str


@dataclass(frozen=True, slots=True)
class ChosenEntries:
    """The entries of a kubeconfig to connect with. `user`: empty for an anonymous user."""

    cluster: Section
    user: Section
    namespace: str


def kubeconfig_paths(explicit: str) -> list[Path]:
    """Return the files to read: --kubeconfig, or else KUBECONFIG, or else ~/.kube/config. Missing files are left out.

    Raises PluginError if the file of --kubeconfig does not exist.
    """
    if explicit:
        if not Path(explicit).exists():
            raise PluginError(messages.kubeconfig_missing(explicit))
        return [Path(explicit)]
    if named := os.environ.get("KUBECONFIG"):
        paths = [Path(part) for part in dict.fromkeys(named.split(os.pathsep)) if part]
    else:
        paths = [Path.home() / ".kube" / "config"]
    return [path for path in paths if path.exists()]


def read_kubeconfig(paths: list[Path]) -> Kubeconfig:
    """Read and merge files. Raises PluginError if a file cannot be parsed."""
    roots = [_parse(path) for path in paths]
    merged: dict[str, dict[str, Section]] = {"contexts": {}, "clusters": {}, "users": {}}
    for kind, entries in merged.items():
        for root in roots:
            for name, section in _named_entries(root, kind).items():
                entries.setdefault(name, section)
    current = next((name for root in roots if (name := root.text("current-context"))), "")
    return Kubeconfig(tuple(paths), merged["contexts"], merged["clusters"], merged["users"], current)


def choose_entries(kubeconfig: Kubeconfig, flags: ConnectionFlags) -> ChosenEntries | None:
    """Return the cluster and user of the context, or of the flags; None without a context and a cluster.

    Raises PluginError if an entry is missing.
    """
    paths = os.pathsep.join(map(str, kubeconfig.paths))

    def find(kind: str, entries: Mapping[str, Section], flag: str, name: str, named_by: str) -> Section:
        if not (wanted := flag or name):
            return Section()
        if wanted not in entries:
            raise PluginError(messages.entry_missing(kind, wanted, f"--{kind}" if flag else named_by, paths))
        return entries[wanted]

    context = find("context", kubeconfig.contexts, flags.context, kubeconfig.current_context, "current-context")
    named_by = f"{context.place}.{{}}".format
    cluster = find("cluster", kubeconfig.clusters, flags.cluster, context.text("cluster"), named_by("cluster"))
    user = find("user", kubeconfig.users, flags.user, context.text("user"), named_by("user"))
    if not cluster.place:
        if context.place:
            raise context.error(messages.field_missing(named_by("cluster")))
        return None
    return ChosenEntries(cluster, user, context.text("namespace") or "default")


def _parse(path: Path) -> Section:
    try:
        parsed = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - the loader is a safe one
    except (OSError, ValueError, yaml.YAMLError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise PluginError(messages.kubeconfig_unusable(str(path), cause)) from error
    if parsed is not None and not isinstance(parsed, dict):
        raise Section(path).error(messages.not_a("it", "mapping"))
    return Section(path, "", parsed or {})


def _named_entries(root: Section, kind: str) -> dict[str, Section]:
    entries: dict[str, Section] = {}
    for item in root.sections(kind):
        name = item.required_text("name")
        place = f"{kind}[{name}]"
        if name in entries:
            raise root.error(messages.duplicate(place))
        named = Section(item.file, place, item.fields)
        entries[name] = named.section(kind.removesuffix("s")) or Section(item.file, place)
    return entries
