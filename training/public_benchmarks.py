"""Public benchmarks on our models: MTEB through mteb, MMLU and its like through lm-eval.

Both packages come with `pip install gritdesk[evaluate]` and are imported when a task is asked for; they fetch their
data from the Hugging Face hub. What is ours is how a task's text reaches the model: MTEB's with the instruction that
the GRIT paper (arXiv 2402.09906, table 33) gives each task, lm-eval's as one user turn, few-shot examples included.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gritdesk.records import Turn
from training.embedders import TextEmbedder
from training.writers import AnswerWriter

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from mteb import AbsTask

Row = dict[str, Any]


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"this needs a package that is not installed: pip install gritdesk[evaluate] ({error})"
        ) from error


@contextlib.contextmanager
def _fetching(task: str) -> Iterator[None]:
    """Data that cannot be fetched is one line."""
    try:
        yield
    except OSError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"the data of {task} could not be fetched; is there a network? {reason}") from error


@contextlib.contextmanager
def _looking_up(name: str, package: str) -> Iterator[None]:
    """A name that is not there is one line."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{package} knows no {name}") from error


# ---------------------------------------------------------------- MTEB

PAPER_INSTRUCTIONS = {
    "STS": "Retrieve semantically similar text.",
    "Summarization": "Given a news summary, retrieve other semantically similar summaries",
    "CQADupstack": (
        "Given a question, retrieve detailed question descriptions from Stackexchange that are duplicates to the given "
        "question"
    ),
}
"""Of task types and of families of names. mteb itself carries the paper's words for all other tasks of its English
benchmark of 56, and none for these."""


def instruction_of(task: Any, prompt_type: Any) -> str:
    """What stands before a text of a task: before queries, and on both sides where both are alike; never before the
    documents of a retrieval or reranking task.

    Args:
        task: an mteb TaskMetadata.
        prompt_type: an mteb PromptType, query or document; None where both sides are alike.
    """
    if getattr(prompt_type, "value", prompt_type) == "document":
        return ""
    for key, instruction in PAPER_INSTRUCTIONS.items():
        if task.type == key or task.name.startswith(key):
            return instruction
    prompt = task.prompt.get("query") if isinstance(task.prompt, dict) else task.prompt
    return prompt or ""


class MtebEncoder:
    """A TextEmbedder as mteb's EncoderProtocol. Embeddings are of length 1, also for classification, where the paper's
    script left them as long as they were."""

    def __init__(self, embedder: TextEmbedder, name: str) -> None:
        meta = _module("mteb.models").ModelMeta
        self._embedder = embedder
        # mteb knows a model by organisation and name
        safe = "".join(character if character.isalnum() or character in "-._" else "-" for character in name).strip(
            "-."
        )
        self.mteb_model_meta = meta.create_empty({"name": f"gritdesk/{safe}", "revision": "local"})

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **_: Any) -> NDArray[np.float32]:
        """Embeddings of all texts of a data loader, float32[num, D]."""
        instruction = instruction_of(task_metadata, prompt_type)
        return self._embedder.embed([(instruction, text) for batch in inputs for text in batch["text"]])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of all with all, a tensor [num_1, num_2]."""
        return _tensor(embeddings1) @ _tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of each with its partner, a tensor [num]."""
        return (_tensor(embeddings1) * _tensor(embeddings2)).sum(dim=-1)


def _tensor(embeddings: Any) -> Any:
    import torch

    found = torch.as_tensor(embeddings)
    return found[None] if found.ndim == 1 else found


def mteb_tasks(names: Sequence[str]) -> list[str]:
    """Names of tasks, a benchmark's name such as "MTEB(eng, classic)" replaced by its tasks'."""
    found: list[str] = []
    for name in names:
        if "(" in name:
            with _looking_up(name, "mteb"):
                found += [task.metadata.name for task in _module("mteb").get_benchmark(name).tasks]
        else:
            found.append(name)
    return found


def mteb_scores(embedder: TextEmbedder, model_name: str, task: str | AbsTask) -> Row:
    """Main score of one task, on the splits and languages of MTEB's English benchmark if it is one of its 56.

    Raises: ValueError without the package, the task or its data.
    """
    mteb = _module("mteb")
    with _looking_up(str(task), "mteb"):
        found = _english_task(mteb, task) if isinstance(task, str) else task
    with _fetching(found.metadata.name):
        model = MtebEncoder(embedder, model_name)
        results = mteb.evaluate(model, found, cache=None, co2_tracker=False, show_progress_bar=False)
    metadata = found.metadata
    score = float(results.task_results[0].get_score())
    return {"set": metadata.name, "kind": f"mteb {metadata.type}", metadata.main_score: round(score, 4)}


def _english_task(mteb: Any, name: str) -> AbsTask:
    """MSMARCO is scored on its dev split, STS17 and STS22 in English alone: the benchmark's own tasks know."""
    for task in mteb.get_benchmark("MTEB(eng, classic)").tasks:
        if task.metadata.name == name:
            found: AbsTask = task
            return found
    other: AbsTask = mteb.get_task(name, languages=["eng"])
    return other


# ---------------------------------------------------------------- lm-eval


@dataclass(frozen=True)
class Recipe:
    """How the GRIT paper (appendix E) runs a benchmark."""

    task: str
    """Name in lm-eval."""
    num_shots: int
    limit: int | None = None
    """Questions of each task that are asked; None: all."""
    runs_code: bool = False


RECIPES = {
    "mmlu": Recipe("mmlu", 0),
    "gsm8k": Recipe("gsm8k_cot", 8, 200),
    "bbh": Recipe("bbh_cot_fewshot", 3, 40),
    "tydiqa": Recipe("tydiqa_goldp", 1, 100),
    "humaneval": Recipe("humaneval_instruct", 0, runs_code=True),
}
"""MMLU by the likeliest letter, where the paper reads the letter from an answer; HumanEval by one greedy answer, where
it draws 20; TyDi QA in the 9 languages of lm-eval's task."""


def lm_eval_scores(
    writer: AnswerWriter,
    name: str,
    *,
    limit: int | None = None,
    seed: int = 1,
    allow_code: bool = False,
    task_manager: Any = None,
) -> list[Row]:
    """Scores of one of RECIPES or of any task, group or tag of lm-eval; of a tag, each task's and their mean.

    Args:
        limit: questions of each task; None: as the recipe says, all of other tasks.
        allow_code: let it run programs that the model writes, which HumanEval does.
        task_manager: an lm-eval TaskManager that knows more tasks.
    Raises: ValueError without the package, the task, its data or the permission.
    """
    lm_eval = _module("lm_eval")
    recipe = RECIPES.get(name)
    if recipe and recipe.runs_code:
        if not allow_code:
            raise ValueError("this runs programs that the model writes; if they may run here, add --allow-code")
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # the metric asks for it, too
    task = recipe.task if recipe else name
    task_manager = task_manager or _module("lm_eval.tasks").TaskManager()
    if task not in task_manager.all_tasks:
        raise ValueError(f"lm-eval knows no {task}")
    with _fetching(name):
        found = lm_eval.simple_evaluate(
            model=lm_eval_model(writer),
            tasks=[task],
            num_fewshot=recipe.num_shots if recipe else None,
            limit=limit or (recipe.limit if recipe else None),
            bootstrap_iters=0,
            log_samples=False,
            task_manager=task_manager,
            confirm_run_unsafe_code=allow_code,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    return _lm_eval_rows(name, task, found)


def _lm_eval_rows(name: str, task: str, found: Any) -> list[Row]:
    """One row of a task or a group; of a tag, which lm-eval does not sum up, a row each and their mean."""
    results = (found.get("groups") or {}) if task in (found.get("groups") or {}) else found["results"]
    chosen = {task: results[task]} if task in results else results
    rows = [
        {"set": name if each == task else each, "kind": "lm-eval"} | _lm_eval_metrics(values)
        for each, values in chosen.items()
    ]
    if task in chosen:
        return rows
    shared = [key for key in rows[0] if all(isinstance(row.get(key), float) for row in rows)]
    return [
        *rows,
        {"set": name, "kind": "lm-eval"} | {key: round(fmean(row[key] for row in rows), 4) for key in shared},
    ]


def _lm_eval_metrics(values: dict[str, Any]) -> Row:
    """ "acc,none" -> acc; "exact_match,strict-match" -> exact_match strict-match; without standard errors."""
    return {
        key.removesuffix(",none").replace(",", " "): round(float(value), 4)
        for key, value in values.items()
        if "," in key and "_stderr" not in key and isinstance(value, (int, float))
    }


def lm_eval_model(writer: AnswerWriter) -> LM:
    """An AnswerWriter as lm-eval's LM: a context is one user turn, what continues it is the answer. Always greedy."""

    class FramedModel(_module("lm_eval.api.model").LM):  # type: ignore[misc]
        def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
            return [self._written(*request.args) for request in requests]

        def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return [self._likelihood(*request.args) for request in requests]

        def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
            return [-writer.text_nats(request.args[0])[0] for request in requests]

        def _written(self, context: str, settings: dict[str, Any]) -> str:
            until = settings.get("until") or []
            stops = [until] if isinstance(until, str) else list(until)
            return writer.answer([Turn("user", context)], int(settings.get("max_gen_toks", 256)), stops)

        def _likelihood(self, context: str, answer: str) -> tuple[float, bool]:
            if not context:
                return -writer.text_nats(answer)[0], False
            nats, is_greedy = writer.answer_nats([Turn("user", context), Turn("assistant", answer)])
            return -nats, is_greedy

    return FramedModel()
