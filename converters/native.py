"""What only llama.cpp can do, done in a child process: quantize a file, tokenize texts with a file's vocabulary.

A child, because llama.cpp answers much bad input by aborting its process, cannot be cancelled while it quantizes, and
prints what it has to say. Run as `python -m converters.native JOB`, a JSON list of the arguments; texts come
through stdin; the outcome is one JSON line on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import converters


def tokenize(vocab_file: Path, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of plain texts by llama.cpp: no BOS, nothing parsed as special.

    Raises: ValueError if llama.cpp cannot read the vocabulary.
    """
    ids: list[list[int]] = run_child(__name__, "tokenize", str(vocab_file), stdin=list(texts))
    return ids


def run_child(
    module: str, *job: Any, stdin: list[str] | None = None, progress: Callable[[str], None] | None = None
) -> Any:
    """Run a module as a program, with the job as a JSON list. Returns: the JSON of its last line on stdout.

    Args:
        progress: called with each line of stdout as it comes.
    Raises: ValueError with the last word on its stderr if it fails.
    """
    root = str(Path(converters.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1", "OMP_WAIT_POLICY": "passive"}
    # files, where pipes could fill up while nobody reads them
    with _text_file() as given, _text_file() as complaints:
        json.dump(stdin, given)
        given.seek(0)
        lines: list[str] = []
        with subprocess.Popen(
            [sys.executable, "-P", "-m", module, json.dumps(job)],  # -P: no modules from the cwd
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
            errors="replace",
            env=environment,
        ) as child:
            try:
                for line in child.stdout or ():
                    lines.append(line)
                    if progress:
                        progress(line.strip())
            except BaseException:  # Ctrl+C among them: a child does not go on alone
                child.kill()
                raise
        complaints.seek(0)
        said = [line.strip() for line in complaints if line.strip()]
    if child.returncode:
        reason = next((line for line in reversed(said) if "error" in line.lower() or "fail" in line.lower()), "")
        reason = reason or (said[-1] if said else f"it ended with code {child.returncode}")
        if "iostream error" in reason:  # all that C++ says of a write that failed
            reason += "; is the disk full?"
        raise ValueError(f"llama.cpp could not {job[0]} the file: {reason}")
    return json.loads(lines[-1])


def _text_file() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


# ---------------------------------------------------------------- in the child


def _tokenize(vocab_file: str) -> list[list[int]]:
    import ctypes

    import llama_cpp

    from gritdesk.grit_format import strip_accents

    texts: list[str] = json.load(sys.stdin)
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    params.kv_overrides = overrides = (llama_cpp.llama_model_kv_override * 2)()  # an empty one ends the list
    overrides[0].key = b"tokenizer.ggml.normalizer.strip_accents"  # as the engine has it: see strip_accents
    overrides[0].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_BOOL
    model = llama_cpp.llama_model_load_from_file(os.fsencode(vocab_file), params)
    if not model:
        sys.exit(1)
    vocab = llama_cpp.llama_model_get_vocab(model)
    value = ctypes.create_string_buffer(8)
    llama_cpp.llama_model_meta_val_str(model, overrides[0].key, value, len(value))
    texts = [strip_accents(text) for text in texts] if value.value == b"true" else texts
    return [_tokenize_one(llama_cpp, vocab, text.encode("utf-8")) for text in texts]


def _tokenize_one(llama_cpp: Any, vocab: Any, text: bytes) -> list[int]:
    room = len(text) + 8  # never more tokens than bytes, but for a space put in front
    ids = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocab, text, len(text), ids, room, False, False)
    assert count >= 0, f"{len(text)} bytes gave more than {room} tokens"
    return list(ids[:count])


if __name__ == "__main__":
    name, *arguments = json.loads(sys.argv[1])
    jobs: dict[str, Callable[..., Any]] = {"tokenize": _tokenize}
    outcome = jobs[name](*arguments)
    print(json.dumps(outcome), flush=True)
