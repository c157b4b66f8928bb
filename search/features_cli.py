"""The `features` commands: extract what the frozen backbone computes, here or on a cluster, and describe it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from core.terminal.cli import ConfigOption
from core.terminal.console import FeatureDisplay, say, show

if TYPE_CHECKING:
    from core.config import TrainConfig
    from core.features.inputs import FeatureInputs
    from core.features.store import FeatureStore

app = typer.Typer(
    help="Extract the frozen backbone's features, or describe them.",
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
    from core.features.inputs import read_inputs

    require_cluster_first(address)
    settings = load_config(config)
    inputs = read_inputs(settings, verify=verify)
    store = extract_missing(settings, address, nodes, inputs=inputs, shard=shard)
    say(f"features {store.fingerprint} in {store.folder}")


@app.command(epilog="Example: crossmodal features info --config configs/demo/internvl3_bbox.yaml")
def info(config: ConfigOption, verify: VerifyOption = False) -> None:
    """Describe the features of a configuration and the model on top of them."""
    from core.config import load_config
    from core.features.inputs import read_inputs
    from core.model.model import build_model, parameter_counts

    settings = load_config(config)
    store = extract_missing(settings, None, 1, inputs=read_inputs(settings, verify=verify))
    wanted = settings.features
    features = store.features(
        image_pooling=wanted.image_pooling, text_pooling=wanted.text_pooling, allow_degenerate=True
    )
    model = build_model(settings, features)
    table = Table(title=f"features {store.fingerprint}", show_header=False)
    for split, counts in store.manifest["counts"].items():
        table.add_row(split, ", ".join(f"{value:,} {name}" for name, value in counts.items()))
    for kind, width in store.manifest["dimensions"].items():
        for pooling, health in store.manifest["health"][kind].items():
            table.add_row(
                f"{kind} by {pooling}",
                f"{width} wide, relative spread {health['spread']:.3f}, distinct {health['distinct']:.1%}",
            )
    for part, count in parameter_counts(model).items():
        table.add_row(f"trainable: {part}", f"{count:,}")
    table.add_row("trainable in all", f"{sum(parameter_counts(model).values()):,}")
    show(table)


def require_cluster_first(address: str | None) -> None:
    """Before minutes of work that would end there."""
    if address is not None:
        from search.cluster.connection import require_cluster

        require_cluster(address)


def extract_missing(
    config: "TrainConfig",
    address: str | None,
    nodes: int,
    *,
    inputs: "FeatureInputs",
    shard: int | None = None,
) -> "FeatureStore":
    """The feature store of a configuration, extracted here or on a cluster where it is missing."""
    from core.features.extraction import SHARD
    from core.features.opening import prepare_features
    from search.cluster.extraction import encode_on_cluster

    encode = None if address is None else encode_on_cluster(config, address, nodes=nodes)
    with FeatureDisplay() as display:
        return prepare_features(config, inputs=inputs, encode=encode, shard=shard or SHARD, display=display)
