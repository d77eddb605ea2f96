"""Ray Serve: the exported model behind HTTP; requests that arrive together are padded together and answered at once.

POST /  {"rows": [[nine numbers from 0 to 1], ...]}  ->  {"digit": 3, "probabilities": [...], "batch": how many at once}
"""

# No "from __future__ import annotations": FastAPI must see the class Sequence itself, for Ray runs what it has pickled.
import argparse
import asyncio
import os
import signal
import threading
from typing import Annotated, Any

import numpy as np
import ray
from classifier import WIDTH, Classifier
from cluster import connect
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from ray import serve

LONGEST = 512
Number = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Step = Annotated[list[Number], Field(min_length=WIDTH, max_length=WIDTH)]


class Sequence(BaseModel):
    rows: Annotated[list[Step], Field(min_length=1, max_length=LONGEST)]


app = FastAPI(openapi_url=None)


@app.exception_handler(RequestValidationError)
async def refused(_: Request, error: RequestValidationError) -> JSONResponse:
    """The first thing that is wrong, as a sentence; FastAPI's own answer repeats the values, which may be no JSON."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return JSONResponse({"error": f"{place}: {first['msg']}."}, status_code=422)


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=64,
    health_check_period_s=1,
    graceful_shutdown_timeout_s=20,
    ray_actor_options={"num_cpus": 0.5},
)
@serve.ingress(app)
class Digits:
    def __init__(self, model: str, threads: int) -> None:
        self.classify = Classifier(model, threads)

    @app.post("/")
    async def one(self, sequence: Sequence) -> dict[str, Any]:
        return await self.together(np.array(sequence.rows, np.float32))

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.02)
    async def together(self, sequences: list[np.ndarray]) -> list[dict[str, Any]]:
        """In a thread, so that meanwhile the next batch gathers."""
        lengths = np.array([len(rows) for rows in sequences])
        given = await asyncio.to_thread(self.classify, lengths, np.concatenate(sequences))
        return [{"digit": int(p.argmax()), "probabilities": p.tolist(), "batch": len(sequences)} for p in given]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=1)
    o = parser.parse_args()
    stop = threading.Event()
    connect()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    serve.start(http_options={"host": "127.0.0.1", "port": o.port})
    serve.run(Digits.bind(os.path.abspath(o.model), o.threads))
    print(f"ready on http://127.0.0.1:{o.port}/", flush=True)
    stop.wait()
    serve.delete("default")  # waits for the requests that are being answered; serve.shutdown alone cuts them off
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
