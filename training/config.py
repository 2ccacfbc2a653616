"""One recipe is one run: a TOML file read into TrainConfig, and kept beside the checkpoint it made."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from gritdesk.grit_format import MARKERS, Passages
from training.checks import Range, check_fields, from_table

Count = Annotated[int, Range(at_least=1)]
CountOrNone = Annotated[int, Range(at_least=0)]
"""0: none."""
TwoOrMore = Annotated[int, Range(at_least=2)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(at_least=0)]
Share = Annotated[float, Range(at_least=0, at_most=1)]

Attention = Literal["bidirectional", "causal", "causal_instruction"]
Pooling = Literal["mean", "weighted_mean", "last_token", "first_token"]

Precision = Literal["bf16", "fp32"]
Averaging = Literal["token", "sample", "mixed"]
QuantizationType = Literal["Q4_0", "Q8_0"]

SHORTEST_WITH_REPEATS = 34
"""Least sequence_tokens for a text of 16 tokens or more that stands in its row twice."""


@dataclass(frozen=True)
class ModelShape:
    """[model]: a Llama from random weights. Hidden and feed-forward sizes in multiples of 256 suit the K-quants."""

    vocab_size: Count = 8192
    hidden_size: Count = 256
    intermediate_size: Count = 768
    num_layers: Count = 6
    num_heads: Count = 4
    num_kv_heads: Count = 2
    context_length: Count = 2048
    """Tokens the position encoding is laid out for."""
    rope_theta: Positive = 10000.0
    tied_head: bool = False
    """Let the token embeddings be the output head too: what stands in a passage can be written without having been
    learned word by word. With it, the first embedding_dimension dimensions take no part in predicting."""
    embedding_dimension: CountOrNone = 0
    """First dimensions of the last hidden states that are pooled into the embedding; 0: all of them. The next-token
    loss reads them and does not write there, the contrastive loss writes everywhere."""

    def __post_init__(self) -> None:
        check_fields(self)
        smallest = 256 + 3 + len(MARKERS)
        if self.vocab_size < smallest:
            raise ValueError(
                f"model.vocab_size must be at least {smallest}, bytes and special tokens, found {self.vocab_size}"
            )
        if self.hidden_size % self.num_heads or self.hidden_size // self.num_heads % 2:
            raise ValueError(
                f"model.hidden_size must give each of the num_heads the same even number of dimensions, found "
                f"{self.hidden_size} and {self.num_heads}"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_heads must be a multiple of num_kv_heads, found {self.num_heads} and {self.num_kv_heads}"
            )
        if self.embedding_dimension > self.hidden_size:
            raise ValueError(
                f"model.embedding_dimension must be at most hidden_size, found {self.embedding_dimension} and "
                f"{self.hidden_size}"
            )

    @property
    def pooled_dimension(self) -> int:
        return self.embedding_dimension or self.hidden_size


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a run; units stand in the names."""

    data_dir: str = ""
    """Folder with pairs/, chat/ and text/; `--data` sets it."""
    output_dir: str = "runs/model"
    seed: Annotated[int, Range(at_least=0, below=2**32)] = 1
    max_steps: Count = 1000
    """Optimizer updates in all; a resumed run may raise it."""
    max_seconds: CountOrNone = 0
    """Time from the first step on after which a run is at its end, the rate at zero, if max_steps is not reached
    before: a lent machine goes back at its hour. Batches stay those of their steps, rates do not. 0: no limit."""

    base_model: str = ""
    """Folder, or name on the Hugging Face hub, of the model that is trained further, or a GGUF of one that was trained
    here; empty: [model], from nothing."""
    model: ModelShape = field(default_factory=ModelShape)

    lora_rank: CountOrNone = 0
    """Of the adapters that are trained beside a frozen base model (LoRA, with adamw); 0: all weights are trained."""
    lora_alpha: Count = 64
    """What the adapters add is multiplied by lora_alpha / lora_rank."""
    lora_dropout: Share = 0.1
    """Share of an adapter's inputs that is left out; experts that a family keeps in one parameter know none."""
    lora_targets: tuple[str, ...] = ()
    """Names of the matrices that get an adapter, such as q_proj; empty: all of the blocks."""
    quantized_base: bool = False
    """Hold the frozen base's matrices in 4 bits (QLoRA: nf4, double quantization)."""

    pairs: dict[str, Positive] = field(default_factory=dict)
    """Weight of each file in pairs/; batches are drawn in proportion to weight x sqrt(rows). Not named: left out."""
    chat: dict[str, Positive] = field(default_factory=dict)
    text: dict[str, Positive] = field(default_factory=dict)
    max_rows_per_file: Count = 10_000_000
    max_rows: dict[str, Count] = field(default_factory=dict)
    """First rows of a file that are used, by its name: the caps of single files."""

    token_embeddings_from: str = ""
    """Installed package whose BERT the token embeddings start from; empty: random."""

    static_teacher: str = ""
    """Embedder, as `training.embedders.load_embedder` finds it, whose cosines the bag of tokens learns; empty: none."""
    static_teacher_texts: Count = 50_000
    """Texts that the teacher embeds for it."""
    static_distillation_weight: NotNegative = 1.0
    static_steps: CountOrNone = 0
    """Updates of the token embeddings as a bag of tokens, before the first step; 0: the blocks learn from raw ones."""
    static_batch_size: TwoOrMore = 1024
    static_lr: Positive = 0.0006
    static_temperature: Positive = 0.05

    tokenizer_sample_mb: Count = 40
    """Text the tokenizer is trained on, drawn evenly from all files."""

    embedding_batch_size: TwoOrMore = 32
    """Queries in a contrastive batch; each brings its positive and, where the data has one, a hard negative. The other
    queries' passages are the negatives."""
    hard_negatives: CountOrNone = 1
    """Hard negatives of each query, where its row has so many; drawn anew each time, as the positive is."""
    query_tokens: Count = 48
    lowercase_queries: Share = 0.0
    """Share of queries that are read in lower case, as people type them."""
    passage_tokens: tuple[Count, ...] = (48, 64, 96, 160)
    """Longest passage of a batch, drawn anew for each: mostly short for speed, long enough often enough."""
    contrastive_backward: Literal["whole", "split", "cached"] = "whole"
    """How much of a contrastive batch is held for the backward pass: all of it; the queries or the passages, one
    after the other; one micro-batch, at the cost of a second forward pass (GradCache, arXiv 2101.06983). The
    gradients are the same."""
    hard_negative_strength: NotNegative = 0.0
    """Hard negatives weigh exp(this x cosine) times a random one; 0: as much."""
    false_negative_margin: float | None = None
    """Passages more like a query than its positive by this cosine are no negatives; none: all are. The cosines are the
    teacher's where there is one, else the model's own."""
    teacher: str = ""
    """Embedder, as `training.embedders.load_embedder` finds it, that tells how like two texts are, or what
    `python -m training.teach` keeps of one; empty: none."""
    distillation_weight: NotNegative = 0.0
    """Weight of the distance between the teacher's embeddings and the model's, projected to the teacher's dimension."""
    similarity_distillation_weight: NotNegative = 0.0
    """Weight of the distance between the teacher's cosines of a batch's texts and the model's."""
    matryoshka_dimensions: tuple[Count, ...] = ()
    """Dimensions at which the contrastive loss is taken beside the full one, the mean of all."""
    spread_out_weight: NotNegative = 0.0
    """Weight of the squared cosines among the queries and among the positives."""
    contrastive_temperature: Positive = 0.02
    contrastive_temperature_start: Positive = 0.02
    """At the first step; falls geometrically to contrastive_temperature over temperature_steps. A random model
    started at 0.02 collapses: making all texts alike is its quickest way down."""
    temperature_steps: CountOrNone = 300

    language_steps: CountOrNone = 0
    """First updates, with the next-token loss alone: language takes long and high rates, embeddings neither."""
    generation_tokens: CountOrNone = 4096
    """Tokens in a generation batch, chats and text together."""
    generation_sequences: CountOrNone = 0
    """Chats and texts in a generation batch, counted as rows; generation_tokens is 0 then."""
    pack_generation: bool = False
    """Put short chats and texts one behind the other into rows of sequence_tokens, each seeing itself alone: on a GPU
    no time is spent on padding. The numbers are the same."""
    sequence_tokens: TwoOrMore = 512
    """Longest chat or text row."""
    chat_share_start: Share = 0.2
    """Share of the generation tokens that are chats at the first step; the rest is plain text."""
    chat_share_end: Share = 0.8
    repeated_text_share: Share = 0.0
    """Share of plain texts that stand in their row twice, cut to a random length: the second time can be copied.
    Looking back for what was said, which answers from documents need, is learned in hundreds of steps so."""
    passages: Passages = "plain"
    """How the passages of a chat, lines that begin with [1], [2], ..., are read; blocks can be reused from indexing."""
    plain_passages_share: Share = 0.0
    """Share of the chats whose passages are read as plain text all the same, so that the model can do both."""
    kept_refusals: Share = 1.0
    """Share of the chats that answer "The documents do not say." that are used: a young model learns that they are
    never quite wrong before it learns to read."""
    chat_weight: Positive = 1.0
    """What a target of a chat counts against one of a text: answers are short, and texts would drown them."""
    chat_as_text: Share = 0.0
    """Share of the chats of which every token is a target, at the first step; falls to none at the last."""

    later_choices: Share = 1.0
    """Share of the answers from another passage than the first whose choice of passage is learned. The app puts the
    nearest passage first, and rows made from many questions put it anywhere."""
    pointing_weight: NotNegative = 0.0
    """Weight of what makes a head of each of the last pointing_layers blocks look where a copied token stands: answers
    in their passages, repeated texts in their first half."""
    pointing_layers: Count = 2

    mode: Literal["unified", "embedding", "generation"] = "unified"
    attention: Attention = "bidirectional"
    """Of embeddings: `bb`, `cc` and `cb` in the paper's codes. Generation is causal."""
    pooling: Pooling = "mean"
    projection_dimension: CountOrNone = 0
    """Dimension of the embeddings after a linear head over what is pooled; 0: no head, which GGUF files ask for."""
    generation_averaging: Averaging = "token"
    """What counts alike in the next-token loss: tokens, samples, or tokens within groups of mixed_group_size."""
    mixed_group_size: Count = 32
    loss_emb_weight: NotNegative = 1.0
    loss_gen_weight: NotNegative = 1.0
    router_loss_weight: NotNegative = 0.0
    """Weight, beside the next-token loss, of experts being used unevenly; for mixtures of experts."""

    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: NotNegative = 2e-5
    """Of all parameters under adamw; the other rates are muon's."""
    adam_beta2: Annotated[float, Range(at_least=0, below=1)] = 0.95
    gradient_checkpointing: bool = False
    """Compute hidden states anew in the backward pass: a third more time, memory of one layer."""
    muon_lr: NotNegative = 0.0006
    """Learning rate of the hidden matrices (Muon, update matched to AdamW's size)."""
    embedding_lr: NotNegative = 0.0003
    """Learning rate of the token embeddings (AdamW): higher ones undo in tens of steps what tells texts apart."""
    head_lr: NotNegative = 0.003
    """Learning rate of the output head and the norms (AdamW)."""
    weight_decay: NotNegative = 0.01
    muon_weight_decay: NotNegative = 0.01
    """Of the hidden matrices. At high rates they grow until token embeddings are drowned in what blocks add to them."""
    warmup_steps: CountOrNone = 50
    decay_fraction: Share = 0.4
    """Last part of the run in which the learning rate falls linearly to zero."""
    clip_norm: Positive = 1.0

    quantization_aware_steps: CountOrNone = 0
    """Last updates whose losses are those of the quantized weights, so that the model learns to live with them."""
    quantization_aware_type: QuantizationType = "Q4_0"

    precision: Precision = "bf16"
    """Of the matrix products (parameters, pooling and losses are float32): bf16 is twice as fast where the processor
    has instructions for it."""
    compile_layers: bool = False
    """Let torch.compile translate the decoder's layers: a sixth faster on a CPU, after a minute of compiling. Needs a
    C++ compiler there."""
    batch_workers: CountOrNone = 0
    """Processes that make the batches ahead of their steps, where processes can be forked: a GPU would wait for one.
    0: made by the trainer itself, between steps."""
    num_threads: Count = 2
    micro_batch_tokens: Count = 2048
    """Tokens, padding included, in one pass through the model: memory and speed depend on it, numbers do not."""
    log_every_steps: Count = 10
    save_every_steps: Count = 200
    keep_every_steps: CountOrNone = 0
    """Also keep copies NAME-step-N of the checkpoint, without the optimizers' state, for `python -m training.average`;
    a multiple of save_every_steps. 0: none."""

    @property
    def generates(self) -> bool:
        """Whether steps have a next-token loss."""
        return self.mode != "embedding"

    def embeds(self, step: int) -> bool:
        """Whether a step has a contrastive loss."""
        return self.mode == "embedding" or (self.mode == "unified" and step >= self.language_steps)

    def check_matryoshka(self, dimension: int) -> None:
        """Raises: ValueError if embeddings of this dimension cannot be cut as the recipe says."""
        if max(self.matryoshka_dimensions, default=0) >= dimension:
            raise ValueError(
                f"matryoshka_dimensions must be below the embedding's dimension {dimension}, found "
                f"{', '.join(map(str, self.matryoshka_dimensions))}"
            )

    def check_files(self) -> None:
        """Raises: ValueError if a loss of the recipe has no file to learn from."""
        if (self.embeds(self.max_steps - 1) or self.static_steps) and not self.pairs:
            raise ValueError("the recipe learns to embed: name its files and their weights in a table [pairs]")
        if self.generates and not (self.chat or self.text):
            raise ValueError("the recipe learns to write: name its files and their weights in a table [chat] or [text]")

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.passage_tokens:
            raise ValueError("passage_tokens: expected at least one length, found none")
        if self.loss_emb_weight == 0 and self.mode != "generation":
            raise ValueError('loss_emb_weight must be above 0, found 0; mode = "generation" trains without that loss')
        if self.repeated_text_share and self.sequence_tokens < SHORTEST_WITH_REPEATS:
            raise ValueError(
                f"repeated_text_share needs sequence_tokens of at least {SHORTEST_WITH_REPEATS}, found "
                f"{self.sequence_tokens}"
            )
        if self.projection_dimension or not self.base_model:
            self.check_matryoshka(self.projection_dimension or self.model.pooled_dimension)
        if bool(self.generation_sequences) == bool(self.generation_tokens) and self.generates:
            raise ValueError("give generation_tokens or generation_sequences, and set the other to 0")
        for name in ("distillation_weight", "similarity_distillation_weight"):
            if getattr(self, name) and not self.teacher:
                raise ValueError(f"{name} needs a teacher")
        if self.base_model and (self.static_steps or self.token_embeddings_from):
            raise ValueError(
                "static_steps and token_embeddings_from start a model of [model]: base_model has token embeddings"
            )
        unknown = set(self.max_rows) - {*self.pairs, *self.chat, *self.text}
        if unknown:
            raise ValueError(f"max_rows names {', '.join(sorted(unknown))}, which the recipe does not use")
        if self.keep_every_steps % self.save_every_steps:
            raise ValueError(
                f"keep_every_steps must be a multiple of save_every_steps, for it keeps what is saved; found "
                f"{self.keep_every_steps} and {self.save_every_steps}"
            )
        if self.lora_rank and not self.base_model:
            raise ValueError("lora_rank needs a base_model, which the adapters are trained beside")
        if self.lora_rank and self.base_model.endswith(".gguf"):
            raise ValueError("lora_rank needs a checkpoint as base_model, found a GGUF")
        if self.lora_rank and self.optimizer != "adamw":
            raise ValueError(f'lora_rank needs optimizer = "adamw", found {self.optimizer!r}')
        if self.lora_rank and self.quantization_aware_steps:
            raise ValueError("quantization_aware_steps train all weights, lora_rank none of the base's: set one to 0")
        if self.quantized_base and not self.lora_rank:
            raise ValueError("quantized_base needs a lora_rank: weights of 4 bits are not trained themselves")


def read_recipe(path: Path, **overrides: Any) -> TrainConfig:
    """TrainConfig of a TOML recipe; `overrides` that are not None replace what it says.

    Raises: ValueError naming the file, the key that is wrong and what is expected there.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read recipe {path}: {error}") from error
    values |= {key: value for key, value in overrides.items() if value is not None}
    return config_from_dict(values, str(path))


def config_from_dict(values: dict[str, Any], source: str) -> TrainConfig:
    try:
        return from_table(TrainConfig, values)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def config_to_json(config: TrainConfig) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: ValueError naming the file that cannot be read, or holds no object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object")
    return values
