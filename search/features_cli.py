"""The `features` commands: extract what the frozen backbone computes, here or on a cluster, import vectors of other
encoders, and describe them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from core.terminal.cli import ConfigOption, JsonOption
from core.terminal.console import FeatureDisplay, print_json, say, say_lines, show

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from core.campaign.campaign import Campaign
    from core.config import TrainConfig
    from core.features.extraction import Extraction
    from core.features.store import FeatureStore
    from core.features.vector_import import ImportReport
    from core.files.folders import CampaignFolder
    from search.campaign import CampaignFeatures, Cluster

app = typer.Typer(
    help="Extract the frozen backbone's features, import vectors of other encoders, or describe them.",
    no_args_is_help=True,
    epilog="Example: crossmodal features info --config configs/demo/internvl3_bbox.yaml",
)
AddressOption = Annotated[str | None, typer.Option(help="Ray cluster to join: auto, host:port or ray://…")]
NodesOption = Annotated[int, typer.Option(min=1, help="Minimum number of nodes to wait for.")]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify", help="Read every image and backbone file again, instead of a sample of those that look unchanged."
    ),
]


@app.command(epilog="Example: crossmodal features extract --config configs/demo/internvl3_bbox.yaml")
def extract(
    config: ConfigOption,
    address: AddressOption = None,
    nodes: NodesOption = 1,
    shard: Annotated[
        int | None, typer.Option(min=1, help="Images or texts per shard: the most that an interruption can lose.")
    ] = None,
    verify: VerifyOption = False,
) -> None:
    """Run the frozen backbone once over every image and every distinct text, on this machine or on a cluster."""
    from core.config import load_config
    from core.features.extraction import SHARD, Extraction
    from core.features.inputs import read_inputs

    require_cluster_first(address)
    settings = load_config(config)
    wanted = Extraction(read_inputs(settings, verify=verify), settings.readings.all, shard or SHARD)
    store = extract_missing(settings, wanted, address, nodes)
    say(f"features {store.fingerprint} in {store.folder}")


@app.command(
    "import",
    epilog="Example: crossmodal features import output/vectors images.npz texts.npz --train train.json "
    "--test test.json",
)
def import_(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the set of vectors that is written.")],
    vectors: Annotated[
        list[Path],
        typer.Argument(metavar="VECTORS", help=".npz, NAME.images.npy or NAME.texts.npy beside a .txt, or .parquet."),
    ],
    train: Annotated[Path, typer.Option(help="Training annotations, of which every image and text needs vectors.")],
    test: Annotated[Path | None, typer.Option(help="Test annotations, likewise.")] = None,
) -> None:
    """Make a set of vectors that any encoders computed, which `features.vectors` of a configuration names."""
    from core.data.annotations import read_annotations
    from core.features.vector_files import read_vector_file
    from core.features.vector_import import import_vectors

    files = [read_vector_file(path) for path in vectors]
    images = [image for path in (train, test) if path is not None for image in read_annotations(path, None).images]
    report = import_vectors(out, files, images)
    show(_imported_table(report))
    for what, count in report.notes.items():
        say(f"{what}: {count:,}", style="yellow")
    _say_how_to_use(out, report)


def _imported_table(report: "ImportReport") -> Table:
    table = Table(title="vectors")
    for heading in ("reading", "of", "count", "width", "distinct", "from"):
        table.add_column(heading, justify="right" if heading in ("count", "width", "distinct") else "left")
    for each in report.readings:
        size = (f"{each.count:,}", f"{each.width:,}", f"{each.distinct:.1%}")
        table.add_row(f"vectors.{each.name}", each.kind, *size, ", ".join(each.files))
    return table


def _say_how_to_use(out: Path, report: "ImportReport") -> None:
    from core.features.store import MIN_DISTINCT

    for each in report.readings:
        if each.distinct < MIN_DISTINCT:
            say(f"vectors.{each.name} gives few {each.kind} a vector of their own: training refuses it", style="yellow")
    say(f"the set is in {out}; a training configuration reads it by")
    say("data:\n  image_root: null  # where there are no pictures")
    say(f"features:\n  vectors: {out.resolve()}")
    if {each.kind for each in report.readings} == {"images", "texts"}:
        say("  backbone: null")
    for kind in ("images", "texts"):
        if names := [f"vectors.{each.name}" for each in report.readings if each.kind == kind]:
            say(f"  {kind.removesuffix('s')}: {'+'.join(names)}")


@app.command(epilog="Example: crossmodal features info --config configs/demo/internvl3_bbox.yaml")
def info(config: ConfigOption, verify: VerifyOption = False, as_json: JsonOption = False) -> None:
    """Describe the features of a configuration and the model on top of them."""
    from core.config import load_config
    from core.features.extraction import Extraction
    from core.features.inputs import read_inputs
    from core.model.model import build_model, parameter_counts

    settings = load_config(config)
    store = extract_missing(settings, Extraction(read_inputs(settings, verify=verify), settings.readings.all))
    features = store.features(settings.readings, allow_degenerate=True)
    model = build_model(settings, features)
    if as_json:
        print_json(
            {
                "fingerprint": store.fingerprint,
                "folder": store.folder,
                "counts": store.manifest["counts"],
                "readings": [
                    {"name": reading.name, "kind": reading.kind, **store.describe(reading)}
                    for reading in settings.readings.all
                ],
                "trainable_parameters": parameter_counts(model),
            }
        )
        return
    table = Table(title=f"features {store.fingerprint}", show_header=False)
    for split, counts in store.manifest["counts"].items():
        table.add_row(split, ", ".join(f"{value:,} {name}" for name, value in counts.items()))
    for reading in settings.readings.all:
        table.add_row(f"{reading.kind} by {reading.name}", _described(store.describe(reading)))
    for part, count in parameter_counts(model).items():
        table.add_row(f"trainable: {part}", f"{count:,}")
    table.add_row("trainable in all", f"{sum(parameter_counts(model).values()):,}")
    show(table)


def _described(facts: "Mapping[str, Any]") -> str:
    """Manifest of a reading in words."""
    shape, health = " × ".join(map(str, facts["shape"])), facts["health"]
    return (
        f"{shape} wide, relative spread {health['spread']:.3f}, distinct {health['distinct']:.1%}, "
        f"{facts['bytes'] / 1e6:,.3g} MB, {facts['flops'] / 1e9:,.3g} GFLOP each"
    )


def require_cluster_first(address: str | None) -> None:
    """Check the address before minutes of other work."""
    if address is not None:
        from search.cluster.connection import require_cluster

        require_cluster(address)


def extract_missing(
    config: "TrainConfig", wanted: "Extraction", address: str | None = None, nodes: int = 1
) -> "FeatureStore":
    """The feature store of a configuration; readings that are missing are extracted here or on a cluster."""
    from core.features.opening import prepare_features

    encode = None
    if address is not None:
        from search.cluster.extraction import encode_on_cluster

        encode = encode_on_cluster(config, address, nodes=nodes)
    with FeatureDisplay() as display:
        return prepare_features(config, wanted, encode=encode, display=display)


def prepare_campaign_features(
    campaign: "Campaign", folder: "CampaignFolder", cluster: "Cluster", *, verify: bool
) -> "CampaignFeatures":
    """The features of all trials of a campaign; nothing is extracted for a campaign that could not use it."""
    from core.features.inputs import absences, read_inputs
    from core.features.manifest import missing_readings
    from search.campaign import (
        CampaignFeatures,
        campaign_readings,
        extraction_variant,
        extraction_variants,
        require_regions,
        require_unchanged_features,
    )

    variants = extraction_variants(campaign, campaign.base)
    inputs_of_each = [read_inputs(config, verify=verify) for config in variants]
    require_regions(campaign, boxes=inputs_of_each[0].boxes, relations=inputs_of_each[0].relations)
    say_lines(absences(inputs_of_each[0], campaign.base))
    parts = {extraction_variant(config): inputs.parts for config, inputs in zip(variants, inputs_of_each, strict=True)}
    features = CampaignFeatures(parts, campaign_readings(campaign))
    require_unchanged_features(features, folder)
    for config, inputs in zip(variants, inputs_of_each, strict=True):
        if missing_readings(config.features.store, inputs.parts.fingerprint, features.readings):
            from core.features.extraction import Extraction  # imports torch, and most starts extract nothing

            extract_missing(config, Extraction(inputs, features.readings), cluster.address, cluster.nodes)
    return features
