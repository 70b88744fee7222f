"""`kaito adapter`: looks at adapters, and packs them into images."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kaito_core.api.peft.report import AdapterReport, examine
from kaito_core.cli.output import ReportFormat, ReportOption, print_data
from kaito_core.cli.session import Session
from kaito_core.errors import ConfigError, UnknownPresetError, known_names

__all__ = ["app"]

app = typer.Typer(help="Check adapters, and pack them into images.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder as PEFT saves it.")]


@app.command()
def check(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="DIR|URI", help="Folder as PEFT saves it, or where one is fetched from.")
    ],
    preset: Annotated[str, typer.Option(metavar="NAME", help="Preset that is to serve it.", show_default=False)] = "",
    output: ReportOption = ReportFormat.text,
) -> None:
    """Say whether an adapter can be served, or why not, and what it needs. Exit with status 1 if it is refused.

    The configuration, the names, shapes and values of the tensors are checked, without torch. Whether the layers are
    those of the model is checked again where the model is loaded.
    """
    session: Session = context.obj
    with _fetched(source) as folder:
        report = examine(folder)
    base = _repository(session, preset) if preset else ""
    if base and report.base_model and not _same_model(base, report.base_model):
        report.notes.append(f"it was trained on {report.base_model}; preset '{preset}' serves {base}")
    if output is ReportFormat.text:
        _print(source, report)
    else:
        print_data({"adapter": source, **asdict(report)}, output)
    if not report.works:
        raise typer.Exit(1)


BaseOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Image on disk below /data, for its /bin/sh and cp.", show_default=False),
]
BusyboxOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A static busybox in place of a base image.", show_default=False),
]


@app.command()
def pack(
    folder: FolderArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Archive to write.")],
    name: Annotated[
        str, typer.Option(help="What `docker load` calls the image; default: the folder's name.", show_default=False)
    ] = "",
    base: BaseOption = None,
    busybox: BusyboxOption = None,
) -> None:
    """Pack an adapter into an image with its files in /data. The same files give the same bytes; no Docker is needed.

    In a cluster the operator copies /data with the image's own /bin/sh and cp: give --base or --busybox.
    """
    from kaito_core.local.pack import pack as write

    _refuse_broken(folder)
    image = write(folder, output, name or f"{folder.resolve().name.lower()}:latest", base=base, busybox=busybox)
    print(f"{output}: {image.index.digest}")
    _warn_of_no_shell(image.has_shell)


@app.command()
def push(
    source: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="The adapter's folder, or what pack wrote.")],
    reference: Annotated[str, typer.Argument(metavar="REF", help="Where to, such as registry.example/style:1.")],
    base: BaseOption = None,
    busybox: BusyboxOption = None,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="Use http instead of https.")] = False,
) -> None:
    """Push an adapter to a registry as an image with its files in /data, with the credentials of `docker login`."""
    import httpx

    from kaito_core.local.pack import packed, read_packed
    from kaito_core.local.registry import Registry, docker_login, split_reference
    from kaito_core.local.registry import push as send

    host, repository, tag = split_reference(reference)
    if source.is_file():
        contents = read_packed(source)
    else:
        _refuse_broken(source)
        contents = packed(source, base=base, busybox=busybox)
    with contents as image, httpx.Client(timeout=60.0) as client:
        base_url = f"{'http' if plain_http else 'https'}://{host}"
        digest = send(image, Registry(client, base_url, repository, docker_login(host)), tag)
        print(f"{reference}@{digest}")
        _warn_of_no_shell(image.has_shell)


def _refuse_broken(folder: Path) -> None:
    report = examine(folder)
    if not report.works:
        raise ConfigError(f"{folder} is refused: {report.reason}")


def _warn_of_no_shell(has_shell: bool) -> None:
    if not has_shell:
        print(
            "note: the image has no /bin/sh, with which the operator copies /data; it is for kaito up. "
            "Give --base or --busybox for a cluster.",
            file=sys.stderr,
        )


@contextmanager
def _fetched(source: str) -> Iterator[Path]:
    """Yields the folder itself, or one with what a URI names, fetched as a container in a cluster fetches it."""
    if "://" not in source:
        yield Path(source)
        return
    from kaito_core.fetch.cli import fetch_from_environment

    with tempfile.TemporaryDirectory(prefix="kaito-check-") as scratch:
        folder = Path(scratch) / "adapter"
        fetch_from_environment([source], folder, None)
        yield folder


def _repository(session: Session, preset: str) -> str:
    try:
        return session.registry.preset(preset).weights.repository
    except UnknownPresetError as error:  # its message is about a field of a Workspace
        known = known_names(session.registry.presets, preset)
        raise ConfigError(f"--preset: unknown preset '{preset}'; {known}") from error


def _same_model(one: str, other: str) -> bool:
    """Returns whether two repositories, or folders, have the same name; owners differ among copies of a model."""
    return one.rpartition("/")[2].casefold() == other.rstrip("/").rpartition("/")[2].casefold()


def _print(source: str, report: AdapterReport) -> None:
    if not report.works:
        print(f"{source} is refused: {report.reason}")
        return
    print(f"{source} can be served")
    lines = {
        "rank": str(report.rank),
        "targets": f"{', '.join(report.targets)} ({report.modules} layer{'s' * (report.modules != 1)})",
        "memory": f"{_mib(report.gpu_bytes)} on a GPU, {_mib(report.cpu_bytes)} on a CPU",
        "digest": report.digest,
        "trained on": report.base_model,
    }
    for name, text in lines.items():
        if text:
            print(f"  {name + ':':<12}{text}")
    for note in report.notes[:5]:
        print(f"  note:       {note}")
    if len(report.notes) > 5:
        print(f"  and {len(report.notes) - 5} notes more, see -o json")


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
