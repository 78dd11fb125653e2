"""A job without torch: five short rounds at a steady pace, each committed. It speaks the real protocol.

`metadata` of its spec says what goes wrong: `pace` seconds a round, `die_in_round` (SIGKILL in attempt 1),
`deaf` (SIGTERM is ignored), `hang_in_round`, `exit_in_round`, `garble_in_round`, `noise` (bytes that are no
text), `litter` (files in the scratch folder).
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from schemas.round import Checkpoint, Round
from workers.errors import Stopped
from workers.link import Meter, PipeLink, step
from workers.messages import EXIT_STOPPED, DoneMessage, JobOrder
from workers.process import die_with_parent
from workers.settings import ChildSettings


def main() -> int:
    own = ChildSettings.read()
    die_with_parent(own.parent)
    link = PipeLink(os.fdopen(own.messages_fd, "w"), sys.stdin)
    order = JobOrder.model_validate_json(sys.stdin.readline())
    if order.spec.metadata.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        link.stop_on(signal.SIGTERM)
    try:
        run(order, link)
    except Stopped:
        return EXIT_STOPPED
    return 0


def run(order: JobOrder, link: PipeLink) -> None:
    wants = order.spec.metadata
    rounds = order.spec.rounds_in_all()
    done = order.checkpoint.round if order.checkpoint else 0
    meter = Meter(link, rounds, done, rounds=rounds)
    for number in range(done + 1, rounds + 1):
        meter.begin("finetune", 1, round=number)
        with step(link, f"finetune#{number}"):
            misbehave(order, number)
            pause(float(wants.get("pace", "0.1")), meter)
        meter.end()
        link.commit(round_of(order, number), checkpoint_of(order, number))
        print(f"round {number} of attempt {order.attempt}", flush=True)
    link.send(DoneMessage(reason="Paced.", summary={"attempt": order.attempt}, manifest={}))


def misbehave(order: JobOrder, number: int) -> None:
    wants, text = order.spec.metadata, str(number)
    if wants.get("die_in_round") == text and order.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if wants.get("hang_in_round") == text and order.attempt == 1:
        time.sleep(3600)
    if wants.get("garble_in_round") == text and order.attempt == 1:
        os.write(ChildSettings.read().messages_fd, b'{"kind": "no such message"}\n')
    if wants.get("noise"):
        os.write(1, b"\xff\xfe not UTF-8\n" * 2000)
    if wants.get("litter"):
        (Path(tempfile.gettempdir()) / "left-behind").write_text("x")
        print(f"scratch {tempfile.gettempdir()}", flush=True)
    if wants.get("exit_in_round") == text:
        sys.exit(3)


def pause(seconds: float, meter: Meter) -> None:
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        meter.advance(elapsed / seconds)
        time.sleep(0.02)


def round_of(order: JobOrder, number: int) -> Round:
    return Round(
        number=number,
        attempt=order.attempt,
        sparsity=order.spec.removed_after(number),
        metric=0.9,
        metric_before_fine_tune=0.8,
        epochs=1,
        held=True,
        seconds=0.1,
    )


def checkpoint_of(order: JobOrder, number: int) -> Checkpoint:
    prefix = f"{order.prefix}rounds/{number}/{order.token}/"
    return Checkpoint(round=number, prefix=prefix, sha256="0" * 64, bytes=0, dense_metric=0.9)


if __name__ == "__main__":
    sys.exit(main())
