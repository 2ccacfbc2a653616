"""One model, both attention modes, in a process of its own.

front ends, services -> host.py     the only part the app imports; native code never runs in its process
child process        -> worker.py   serves requests by priority, one small step at a time
                        embedder.py generator.py    texts -> embeddings, turns -> pieces of text
                        self_test.py                proves at load that the two modes are what they claim
                        llama.py                    the only importer of llama_cpp
another server       -> endpoint.py embeds in the model's place, if the settings name one
both                 -> wire.py     what travels over the pipe
"""
