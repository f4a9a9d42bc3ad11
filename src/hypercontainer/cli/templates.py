"""The verb template: the saved machines that others start as copies of."""

from __future__ import annotations

import argparse

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command
from hypercontainer.client import Client
from hypercontainer.errors import InvalidRequest


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("act", choices=("ls", "rm", "prune"), metavar="ls|rm|prune")
    parser.add_argument("templates", nargs="*", metavar="TEMPLATE", help="its id, or how that begins")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="'json' for programs")


def _template(arguments: argparse.Namespace) -> int:
    if (arguments.act == "rm") != bool(arguments.templates):
        raise InvalidRequest("`hyper template rm` needs TEMPLATE, and nothing else takes it")
    client = Client.default()
    match arguments.act:
        case "rm":
            for template in arguments.templates:
                client.templates.remove(template)
                print(template)
        case "prune":
            removed = client.templates.prune()
            print("\n".join(template.id for template in removed), end="\n" if removed else "")
            print(f"freed {output.bytes_size(sum(template.size for template in removed))}")
        case _:
            _list(client, arguments.format)
    return 0


def _list(client: Client, style: str) -> None:
    templates = client.templates.list()
    if style == "json":
        output.json_lines(templates)
        return
    rows = [
        (
            each.id,
            each.hypervisor,
            str(each.vcpus),
            f"{each.memory_mib} MiB",
            str(each.nics),
            output.bytes_size(each.size),
            output.ago(each.created),
            output.ago(each.used),
        )
        for each in templates
    ]
    output.table(("TEMPLATE", "HYPERVISOR", "VCPUS", "MEMORY", "NICS", "SIZE", "CREATED", "USED"), rows)


COMMANDS = {
    "template": Command(
        usage="template ls|rm|prune [TEMPLATE...] [--format json]",
        description="List or remove templates: machines saved with their memory when they were ready, of\n"
        "which hyperd starts others as copies instead of booting them. They are made by themselves, one\n"
        "for each size of machine that was started, and again after they were removed.",
        arguments=_arguments,
        run=_template,
        examples="hyper template ls\nhyper template rm 3f2a\nhyper template prune",
    ),
}
