"""Slots and queues of a worker."""

from dataclasses import replace

from schemas.wire import DeviceClass
from workers.devices import Device, detect, most_memory, slots, threads_for
from workers.host_memory import total_bytes

CPU = Device(DeviceClass.cpu, "cpu", {"CUDA_VISIBLE_DEVICES": ""})
AMPERE = Device(DeviceClass.ampere, "A100", {"CUDA_VISIBLE_DEVICES": "GPU-1"})


def test_a_machine_without_nvml_is_one_cpu_that_hides_gpus_from_its_children():
    found = detect()

    if found[0].kind is DeviceClass.cpu:
        assert len(found) == 1
        assert found[0].env == {"CUDA_VISIBLE_DEVICES": ""}


def test_a_cpu_may_be_cut_into_slots_and_a_gpu_may_not():
    assert slots([CPU], 4) == [CPU] * 4
    assert slots([CPU], 0) == [CPU]
    assert slots([AMPERE, AMPERE], 0) == [AMPERE, AMPERE]
    assert slots([AMPERE, AMPERE], 1) == [AMPERE]


def test_an_ampere_gpu_takes_the_scarcest_class_first():
    assert AMPERE.serves == (DeviceClass.ampere, DeviceClass.cuda, DeviceClass.any)
    assert DeviceClass.cuda not in CPU.serves


def test_a_child_is_told_the_kind_of_its_device():
    assert (CPU.torch_name, AMPERE.torch_name) == ("cpu", "cuda")


def test_slots_share_the_cores_unless_the_operator_says_how_many():
    assert threads_for(10_000, 0) == 1
    assert threads_for(1, 3) == 3


def test_a_worker_states_the_memory_of_its_largest_device_or_none():
    small, large = replace(AMPERE, memory_bytes=40), replace(AMPERE, memory_bytes=80)

    assert most_memory([small, large]) == 80
    assert most_memory([small, AMPERE]) is None
    assert most_memory([CPU]) is None


def test_without_a_gpu_a_job_can_have_the_hosts_memory():
    found = detect()

    if found[0].kind is DeviceClass.cpu:
        assert found[0].memory_bytes == total_bytes()
