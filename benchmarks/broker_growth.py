"""CPU and memory of the embedded broker for one message sent and fetched, after none and many.

    python -m benchmarks.broker_growth [--sizes 0,10000,100000] [--probes 300] [--partitions 16]

All messages before go one by one into one partition, as single events do; the consumer reads that
and the others, as a worker does. CPU time is measured: other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from kafka import KafkaAdminClient

from benchmarks.conditions import report, servers
from ops.processes import listens

TOPIC = "growth"
MESSAGE = b"x" * 200
IN_FLIGHT = 500
IDLE_S = 5.0
WARM_UP = 50


def broker_process(address: str) -> psutil.Process:
    """The process among this one's children that listens there."""
    port = int(address.rpartition(":")[2])
    for child in psutil.Process().children(recursive=True):
        if listens(child.pid, port):
            return child
    raise RuntimeError("no embedded broker runs")


def cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(
    address: str, sizes: Sequence[int], probes: int, partitions: int
) -> list[dict[str, float]]:
    """Figures at each size."""
    broker = broker_process(address)
    producer = AIOKafkaProducer(bootstrap_servers=address, max_batch_size=len(MESSAGE) + 100)
    consumer = AIOKafkaConsumer(bootstrap_servers=address, fetch_max_wait_ms=500)
    await producer.start()
    await consumer.start()
    everywhere = [TopicPartition(TOPIC, number) for number in range(partitions)]
    consumer.assign(everywhere)
    found, n_sent = [], 0
    try:
        for size in sizes:
            while n_sent < size:
                n_now = min(IN_FLIGHT, size - n_sent)
                sent = [await producer.send(TOPIC, MESSAGE, partition=0) for _ in range(n_now)]
                await asyncio.gather(*sent)
                n_sent += n_now
            consumer.seek(everywhere[0], n_sent)
            begun_cpu_s, waits = 0.0, []
            for number in range(WARM_UP + probes):
                if number == WARM_UP:
                    begun_cpu_s = cpu_s(broker)
                begun_s = time.perf_counter()
                await producer.send_and_wait(TOPIC, MESSAGE, partition=0)
                message = await consumer.getone()
                if message.offset != n_sent:
                    raise RuntimeError(f"read offset {message.offset} instead of {n_sent}")
                n_sent += 1
                waits.append(time.perf_counter() - begun_s)
            message_cpu_ms = 1000 * (cpu_s(broker) - begun_cpu_s) / probes
            ordered = sorted(waits[WARM_UP:])
            begun_cpu_s = cpu_s(broker)
            await asyncio.sleep(IDLE_S)
            found.append(
                {
                    "messages_before": size,
                    "cpu_ms_per_message": round(message_cpu_ms, 3),
                    "p50_ms": round(1000 * ordered[len(ordered) // 2], 2),
                    "idle_share_of_a_core": round((cpu_s(broker) - begun_cpu_s) / IDLE_S, 4),
                    "pss_mib": round(broker.memory_full_info().pss / 2**20, 1),
                }
            )
    finally:
        await consumer.stop()
        await producer.stop()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="0,10000,100000")
    parser.add_argument("--probes", type=int, default=300)
    parser.add_argument("--partitions", type=int, default=16)
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    with servers() as settings:
        admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
        admin.create_topics({TOPIC: {"num_partitions": options.partitions}})
        admin.close()
        found = asyncio.run(measure(settings.kafka, sizes, options.probes, options.partitions))
    growth = found[-1]["cpu_ms_per_message"] / max(found[0]["cpu_ms_per_message"], 1e-9)
    report("broker_growth", {"sizes": found, "cpu_growth": round(growth, 2)})


if __name__ == "__main__":
    main()
