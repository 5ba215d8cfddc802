"""The keys of a recipe, section by section, each with its type, default and meaning."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vitft.recipe.amounts import Amount, DataAmount
from vitft.recipe.choices import (
    PARTS,
    AugmentPolicy,
    BadImages,
    Crop,
    Head,
    HubEvery,
    Imbalance,
    Initialisation,
    LoraTargets,
    PositionKind,
    Precision,
    Recomputed,
    ResizeMethod,
    ResizeMode,
    Schedule,
    SimilarNames,
    Tracker,
)
from vitft.recipe.lengths import Duration, Interval, PartOfTraining, TimeSpan, TrainingLength
from vitft.recipe.rates import Rates
from vitft.recipe.sizes import ImageSize, ResolutionSchedule

Fraction = Annotated[float, Field(ge=0, le=1)]
# Bounds far above any use: a larger value is a typo, and would overflow single precision later.
Positive = Annotated[float, Field(gt=0, le=1e30)]
NotNegative = Annotated[float, Field(ge=0, le=1e30)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Alpha = Annotated[float, Field(ge=0, le=1000)]  # at 1000 a pair is mixed half and half; far above, sampling fails
Count = Annotated[int, Field(gt=0, le=10**9)]  # so that products of two of them stay exact
Text = Annotated[str, Field(max_length=4096)]

MAY_CHANGE = "may change when a run is resumed, because it does not change what is computed from good images"
"""Marks a key; ``vitft.recipe.recipe.RESUMABLE_CHANGES`` lists the marked ones."""
Value = TypeVar("Value")
Changeable = Annotated[Value, MAY_CHANGE]


class Form(NamedTuple):
    """What a text that must match a pattern looks like, for the message when it does not."""

    words: tuple[str, ...]
    shown: str


def _as_list(value: object) -> object:
    """Accept a single text as a list of one."""
    return [value] if isinstance(value, str) else value


def _as_recomputed(value: object) -> object:
    """Accept true and false, as former recipes have them."""
    return {True: "blocks", False: "off"}[value] if isinstance(value, bool) else value


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, and nothing changes after validation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


class DataRecipe(Section):
    """Which images and labels, and how images are read."""

    dataset: Text | None = None
    """Hub id (`uoft-cs/cifar100`), old name (`cifar100`), folder, file or `builtin:digits`."""
    config: Text | None = None
    """Configuration of a Hub dataset that has several."""
    revision: Text | None = None
    """Branch, tag or commit of a dataset on the Hub."""
    image_column: Text | None = None
    """Column with the images; found by type when not given."""
    label_column: Text | None = None
    """Column with the labels; found by type when not given."""
    layout: Literal["auto", "folders", "table", "parquet", "arrow", "webdataset"] = "auto"
    """How to read a local folder; auto: the way that fits, or an error if two do (docs/data-layouts.md)."""
    table: Annotated[tuple[Text, ...], BeforeValidator(_as_list)] = ()
    """Files in a folder that label its images (CSV, JSON, lists), to use instead of all that are found."""
    class_level: Count | None = None
    """Level of the folders that name the classes: 1 for those directly in the dataset's folder, 2 for the next."""
    split_column: Text | None = None
    """Column with the split of each row; found by name when not given; `none`: there is no such column."""
    train_split: Text | None = None
    """Name of the training split, or several joined by `+`; `train` when not given."""
    validation_split: Text | None = None
    """Name of the validation split; when not given `validation`, `val`, `valid` or `dev`, else a part of training."""
    test_split: Text | None = None
    """Name of the test split; `test` when not given. It is scored once, at the end."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of the training split to use for validation if there is no such split (stratified, at most 10,000)."""
    max_train_samples: Count | None = None
    """Train on at most this many images, equally many per class if the data allows it."""
    similar_names: SimilarNames = "stop"
    """If class names differ only in case, spaces or separators: stop, merge them into one, or keep them apart."""
    accept_classes: bool = False
    """Train even if the classes look wrong (named like splits or masks, or one per image)."""
    allow_overlap: bool = False
    """Accept images that are in two splits, instead of stopping."""
    check_images: Literal["sample", "all", "off"] = "sample"
    """Which images to decode first as a check; `all` takes time, and also works with `vitft data`."""
    white_level: Literal["auto"] | Annotated[int, Field(gt=0, le=65535)] | None = None
    """White in 16-bit grey images, 65535 when not given; auto: the usual level above a sample's brightest value."""
    bad_images: Changeable[BadImages] = "stop"
    """What to do with an image that cannot be decoded: stop, or skip, count and list it."""
    max_pixels: Annotated[int, Field(ge=1, le=10**9)] = 50_000_000
    """Larger images are bad images, never decoded; JPEGs with up to 4 times as many pixels are read at half size."""
    fit: ResizeMode = "squash"
    """How an image fills the model's rectangle: squashed, cropped at the centre, or padded."""
    streaming: bool = False
    """Read the dataset as a stream instead of downloading it (Hub and webdataset sources)."""
    shuffle_buffer: Count = 2048
    """Rows in the buffer that shuffles a stream."""
    workers: Changeable[Literal["auto"] | Annotated[int, Field(ge=0, le=1000)]] = "auto"
    """Processes that decode and resize images for each training process; 0: the training process does it itself."""
    cache: Changeable[Literal["auto", "memory", "disk", "off"]] = "auto"
    """Where decoded and resized images are kept for later epochs; auto: in memory if they are few, else on disk."""
    cache_limit: Changeable[DataAmount] = Amount(20, "GB")
    """Disk space for the images of all datasets; those used longest ago are removed first (`vitft cache ls`)."""


class PositionRecipe(Section):
    """How the model knows where its patches are."""

    kind: PositionKind | None = None
    """Another position encoding, as an experiment (ViT's appendix D.4); null keeps the checkpoint's own."""


class ModelRecipe(Section):
    """Which checkpoint, and which part of it learns."""

    checkpoint: Text = "google/vit-base-patch16-224-in21k"
    """Hub id, folder, or `builtin:vit-micro`; `auto`: the best of `model.candidates` on the dataset."""
    candidates: tuple[Text, ...] = ()
    """Checkpoints that `model.checkpoint: auto` probes to train the best; [] for the usual four (docs/probing.md)."""
    revision: Text | None = None
    """Branch, tag or commit of a model on the Hub."""
    init: Initialisation = "pretrained"
    """Start from the checkpoint's weights, or only from its architecture."""
    head: Head = "auto"
    """Keep the checkpoint's head if all (auto) or some (keep) of its classes are in the dataset; new: never."""
    image_size: ImageSize | None = None
    """The model's input in pixels: `384`, or `384x512` for height x width; the checkpoint's own when not given."""
    patch_size: Count | None = None
    """Side of a patch in pixels (FlexiViT's resize, arXiv:2212.08013); the checkpoint's own when not given."""
    window_size: Count | None = None
    """Side of Swin's attention windows in patches; the checkpoint's own when not given."""
    resize_method: ResizeMethod = "bicubic"
    """How position tables are resampled to another size (see `vitft resize --help`)."""
    position: PositionRecipe = PositionRecipe()
    """The model's position encoding."""
    train: Annotated[
        str,
        Field(pattern=rf"^({'|'.join(PARTS)}|last:[1-9][0-9]{{0,5}})$"),
        Form((*PARTS, "last:2"), f"{', '.join(PARTS)} or last:N"),
    ] = "all"
    """What to train: `all`, `head`, `last:N` (the head and the last N blocks), or the head and a part with a name."""
    lora_rank: Annotated[int, Field(ge=1, le=4096)] = 16
    """Rank of the adapters of `model.train: lora` (arXiv:2106.09685) and `dora` (arXiv:2402.09353)."""
    lora_alpha: Annotated[int, Field(ge=1, le=65536)] = 16
    """Their scale: what an adapter adds is multiplied by alpha / rank."""
    lora_dropout: BelowOne = 0.1
    """Dropout of what an adapter reads."""
    lora_targets: LoraTargets = "attention"
    """Layers to adapt: those that make queries and values (attention), or all linear layers of the blocks."""
    adapter: bool = False
    """Also keep the adapter on its own, in `adapter/`, for peft; `model/` always has it merged into the weights."""
    drop_path: BelowOne = 0.0
    """Stochastic depth rate of the last block; earlier blocks have linearly less (arXiv:1603.09382)."""
    allow_new: tuple[Text, ...] = ()
    """Parameters besides the head that may be newly initialised; a name ending in `*` is a prefix."""


class AugmentRecipe(Section):
    """Random changes to the training images."""

    crop: Crop = "random-resized"
    """A part of random size and shape, or simple: the whole shorter side, moved by up to 4 pixels (DeiT-III)."""
    crop_scale: tuple[Fraction, Fraction] = (0.5, 1.0)
    """Smallest and largest area of the random crop, as a part of the image; [1, 1] keeps the whole area."""
    crop_ratio: tuple[Positive, Positive] = (0.75, 1.3333333333333333)
    """Smallest and largest width / height of the crop (GoogLeNet, arXiv:1409.4842)."""
    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    vertical_flip: Fraction = 0.0
    """Probability of a top-bottom flip, for images without an upright (from satellites, microscopes)."""
    quarter_turns: bool = False
    """Turn each image by 0, 90, 180 or 270 degrees, each as likely; only if the model's input is square."""
    policy: AugmentPolicy = "none"
    """Random operations: 3-augment (DeiT-III), randaugment or trivialaugment; see docs/augmentation.md."""
    policy_ops: Annotated[int, Field(ge=1, le=16)] = 2
    """RandAugment: operations for each image (arXiv:1909.13719)."""
    policy_magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    """RandAugment: strength of the operations, 0 to 10."""
    policy_noise: Annotated[float, Field(ge=0, le=10)] = 0.5
    """RandAugment: standard deviation of the strength from one operation to the next."""
    policy_probability: Fraction = 0.5
    """RandAugment: probability that a chosen operation is done; 1 in the paper, 0.5 in timm."""
    color_jitter: Fraction = 0.0
    """Brightness, contrast and saturation vary by factors of 1 - this to 1 + this; 0 turns it off."""
    grayscale: Fraction = 0.0
    """Probability that the colours are taken away."""
    blur: Fraction = 0.0
    """Probability of a Gaussian blur by 0.1 to 2 pixels."""
    solarize: Fraction = 0.0
    """Probability that the brighter half of the levels is inverted."""
    erase: Fraction = 0.0
    """Probability that a random rectangle is filled with the mean colour (arXiv:1708.04896)."""
    erase_area: tuple[Fraction, Fraction] = (0.02, 0.3333333333333333)
    """Smallest and largest area of the erased rectangle."""
    mixup_alpha: Alpha = 0.0
    """Beta parameter of mixup (arXiv:1710.09412); 0 turns it off."""
    cutmix_alpha: Alpha = 0.0
    """Beta parameter of CutMix (arXiv:1905.04899); 0 turns it off. With both on, each pair gets one of them."""
    mix_probability: Fraction = 1.0
    """Probability that a pair of images is mixed at all, when mixup or CutMix is on."""
    label_smoothing: BelowOne = 0.1
    """Part of each target spread evenly over all classes (arXiv:1512.00567)."""


class OptimRecipe(Section):
    """How gradients become weights."""

    name: Literal["adamw", "sgd"] = "adamw"
    """AdamW (arXiv:1711.05101), or SGD with momentum."""
    lr: Rates = 1e-3
    """Peak learning rate of the head, less below (`optim.layer_decay`); of several (1e-4,1e-3) the best in trials."""
    head_lr_factor: Positive = 1.0
    """Factor on the learning rate of the head alone."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Factor on the learning rate from each block to the one below (BEiT, arXiv:2106.08254)."""
    weight_decay: NotNegative = 0.05
    """Decoupled weight decay of matrices; biases, norms, tokens and position tables have none."""
    momentum: BelowOne = 0.9
    """Momentum of SGD."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay rates of AdamW's averages."""
    eps: Positive = 1e-8
    """AdamW's epsilon."""
    schedule: Schedule = "cosine"
    """Schedule of the learning rate after the warmup; cosine and linear end at 0."""
    warmup: PartOfTraining = Duration(10, "%")
    """Length of the linear warmup."""
    max_grad_norm: Positive | None = 1.0
    """Larger gradients are scaled down to this norm; null: no clipping."""
    ema_decay: BelowOne = 0.9998
    """Decay of the averaged weights, at most (1 + t) / (10 + t) at step t; 0: no averaging."""

    @property
    def rate(self) -> float:
        """The learning rate, once one of several is chosen."""
        assert isinstance(self.lr, float), self.lr
        return self.lr


class TrainRecipe(Section):
    """How long, how large the steps, and what is kept."""

    duration: TrainingLength = Duration(10, "epochs")
    """Length of the training."""
    resolution_schedule: ResolutionSchedule | None = None
    """Image sizes in order, each with its share of the steps: `{160: 60%, 224: 40%}`; the last is the model's."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=2, le=10**9)] = "auto"
    """Images per optimizer step over all devices; auto: 128, at most a twentieth of the training images."""
    micro_batch_size: Changeable[Literal["auto"] | Count] = "auto"
    """Images per forward pass on one device; auto: as many as fit, found by trial on an accelerator."""
    precision: Precision = "auto"
    """Number format of the forward pass; weights are always kept in float32. auto: bf16 where it is fast."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the model (torch.compile); auto: on a GPU, if the run is long and a few timed steps are faster."""
    sharding: Literal["auto", "none", "fsdp"] = "auto"
    """Divide a model that does not fit on one device over the processes (fsdp: FSDP2); auto: as accelerate says."""
    gradient_checkpointing: Annotated[Recomputed, BeforeValidator(_as_recomputed)] = "off"
    """Recompute the activations of all blocks, or of every second one, in the backward pass: slower, less memory."""
    features: Literal["auto", "off"] = "auto"
    """With `model.train: head`, or last:N and plain views: run what is frozen once per image; off: in every epoch."""
    feature_views: Annotated[int, Field(ge=0, le=1000)] = 0
    """Random views of each image to run it on, without mixing; 0: the plain image, as it is scored."""
    head_first: bool = False
    """Fit the head to its optimum on features of the plain images, then train (LP-FT, arXiv:2202.10054)."""
    imbalance: Imbalance = "none"
    """Skewed classes: weigh the loss, sample classes equally (`sqrt-`: halfway), or adjust logits in the loss."""
    imbalance_tau: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Factor on the log frequencies that `logit-adjustment` adds to the logits in training (arXiv:2007.07314)."""
    evaluate_every: Interval = Duration(1, "epochs")
    """How often the validation split is scored."""
    checkpoint_every: Literal["auto"] | Interval = "auto"
    """How often a resumable checkpoint is written; auto: after each epoch, on features at most every 30 seconds."""
    keep_checkpoints: Changeable[Count] = 2
    """How many of the newest checkpoints to keep on disk while the run trains."""
    keep_after_end: Changeable[Annotated[int, Field(ge=0, le=10**9)]] = 0
    """How many of them to keep when the run has finished; the model does not need them."""
    weights: Literal["best", "last"] = "best"
    """Which weights become the model: those with the best validation score, or the last."""
    patience: PartOfTraining | None = None
    """Stop when the validation score has not improved for this long; null: train to the end."""
    time_limit: Changeable[TimeSpan | None] = None
    """Save a checkpoint and stop after this much time, as on SIGTERM."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed for every random choice."""
    device: Changeable[
        Annotated[
            str,
            Field(pattern=r"^(auto|cpu|mps|xpu|cuda(:[0-9]{1,4})?)$"),
            Form((), "auto, cpu, cuda, cuda:N, mps or xpu"),
        ]
    ] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:N, mps or xpu."""
    deterministic: bool = False
    """Use only deterministic kernels: slower on a GPU, but resuming there becomes exact."""
    profile: Changeable[bool] = False
    """Measure each part of a step and print where the time went; on a GPU this waits for each part."""


class RunRecipe(Section):
    """Where results go and what is measured."""

    name: Changeable[
        Annotated[
            str,
            Field(pattern=r"^[\w][\w.\-]{0,99}$"),
            Form((), "letters, digits, and - _ . after the first, at most 100 (folders go to --output-dir)"),
        ]
        | None
    ] = None
    """Name of the run's new folder: letters, digits, `-_.`, at most 100; from model and dataset when not given."""
    output_dir: Changeable[Text] = "runs"
    """Folder for runs."""
    metrics: Changeable[tuple[Text, ...]] = ()
    """Metrics of the `evaluate` library, by name or folder. They are code: those in a file need `--trust-metrics`."""
    pictures: Changeable[Literal["auto", "on", "off"]] = "auto"
    """Draw the model before and after training, in `figures/`; auto: if that takes under 5 % of the run's FLOPs."""
    track: Changeable[tuple[Tracker, ...]] = ()
    """Experiment trackers that receive the metrics, as accelerate names them."""
    project: Changeable[
        Annotated[str, Field(pattern=r"^[\w][\w.\-]{0,99}$"), Form((), "letters, digits and - _ .")]
    ] = "vitft"
    """Project that the run belongs to in trackers; the run's name is that of its folder."""


class HubRecipe(Section):
    """Whether and how the result is published."""

    push: Changeable[bool] = False
    """Publish the model on the Hub; access is checked before training."""
    repo: Changeable[Text | None] = None
    """`OWNER/NAME`, or `NAME` in your own account; the name of the run's folder when not given."""
    private: Changeable[bool] = False
    """Make the repository private, if it is new."""
    revision: Changeable[Text | None] = None
    """Branch to push to; created if it does not exist."""
    create_pr: Changeable[bool] = False
    """Open a pull request instead of changing the branch."""
    every: Changeable[HubEvery] = "end"
    """What to push in the background during training: nothing (`end`), each best model or each checkpoint."""
    license: Changeable[Text | None] = None
    """Licence of the model, as the Hub spells it (`apache-2.0`); the base model's when not given."""
    force: Changeable[bool] = False
    """Push even to a repository with files that vitft did not push."""
