"""gritdesk: folders that stay searchable by words and by meaning, and that answer with citations.

The floors, bottom to top; imports only ever point down (`make test` checks it with import contracts):

    roof          __main__.py, cli.py, cli_*.py, tui/   front ends, no logic of their own
    third floor   desk.py  doctor.py  choosing.py       one index, one engine, the threads between them
    second floor  indexer.py  retriever.py  reranker.py  relating.py  mapping.py  answerer.py  evidence.py
                  calibration.py  explaining.py  completing.py  estimating.py  pricing.py  warming.py
                                                        one data flow each, read top to bottom
    between       supporting.py  checking.py            what an answer rests on, and whether it still stands there
                  surveying.py                          what lies on the disk beside the rows
    first floor   extract/  chunking.py  prompting.py  passages.py  citing.py  querying.py  scoping.py  watcher.py
                  store/  models.py  engine/  settings.py  machine.py  stored.py  query_history.py  wording.py
                  importing.py  hub.py  model_facts.py  gguf_file.py (models of others; heads of their files)
                  keeping.py  service.py                (who keeps the index up, and when that waits)
                  walking.py  ignoring.py               (which files are documents; indexer and watcher share it)
                                                        one door to one outside thing each
    ground floor  records.py  errors.py  grit_format.py  config.py  terminal.py  starting.py
                                                        what everyone speaks

Beside the house stand `converters/` (checkpoint -> GGUF) and `training/` (jsonl -> checkpoint). They share
nothing with the app but `grit_format` and what it needs from the ground floor. Two doors lead in, because what people
run is what is measured: training/gguf.py, converters/gguf_reader.py and converters/activations.py run the engine,
training/search.py the index and its search.

This module imports nothing, so that `gritdesk --help` starts at once.
"""
