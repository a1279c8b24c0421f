"""What can be tested of CUDA timing without a GPU: the arithmetic, the order of events, and the driver's answers."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from recurrent_lm.lm.base.machine import _driver
from recurrent_lm.studies.timing import cuda
from recurrent_lm.studies.timing.measure import Weather, race


class Device:
    """A GPU on which time passes when something is launched; events note it in milliseconds, as CUDA's do."""

    def __init__(self):
        self.time, self.flushes = 0.0, 0

    def event(self, enable_timing):
        assert enable_timing
        event = SimpleNamespace(at=None, synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.time)
        event.elapsed_time = lambda end: (end.at - event.at) * 1e3
        return event

    def filler(self):
        def zero():
            self.flushes += 1
            self.time += 1.0  # emptying the cache takes long, and must not count

        return SimpleNamespace(zero_=zero)

    def work(self, seconds):
        def call():
            self.time += seconds

        return call


@pytest.fixture
def device(monkeypatch):
    fake = Device()
    monkeypatch.setattr(torch.cuda, "Event", fake.event)
    monkeypatch.setattr(cuda.EventTimer, "_filler", fake.filler())
    return fake


@pytest.mark.parametrize("cold", [False, True])
def test_events_time_the_call_alone(device, cold):
    timer = cuda.EventTimer(cold=cold, least=1e-3, warmup=0.0)
    repeats = timer.prepare(device.work(2.5e-4))
    assert repeats in (4, 5)
    device.flushes = 0
    assert timer.sample(device.work(2.5e-4), repeats) == pytest.approx(2.5e-4)
    assert device.flushes == (repeats if cold else 0)


def test_a_race_on_events_finds_the_ratio(device):
    timed = race({"a": device.work(1e-3), "b": device.work(3e-3)}, cuda.EventTimer(warmup=0.0), 3)
    seconds = {s.name: s.seconds for s in timed.samples}
    assert seconds["b"] / seconds["a"] == pytest.approx(3.0)


class Driver:
    """pynvml, as far as it is asked."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVML_CLOCK_SM = 1

    def __init__(self, reasons=0, broken=False):
        self.reasons, self.broken, self.asked = reasons, broken, []

    def nvmlInit(self):
        if self.broken:
            raise self.NVMLError

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.asked.append(uuid)
        return "handle"

    def nvmlDeviceGetClockInfo(self, handle, kind):
        assert (handle, kind) == ("handle", 1)
        return 1755

    def nvmlDeviceGetPowerUsage(self, handle):
        return 412_500  # milliwatts

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self.reasons

    def nvmlSystemGetDriverVersion(self):
        return b"570.1"


@pytest.fixture
def gpu(monkeypatch):
    def make(driver):
        monkeypatch.setitem(sys.modules, "pynvml", driver)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="12-34"))
        return cuda.Gpu()

    return make


# 1 idle, 4 power cap: how a GPU works. 8, 0x20, 0x40, 0x80: slowed down by heat or the power supply.
@pytest.mark.parametrize(("reasons", "throttled"), [(0, False), (1, False), (4, False), (8, True), (0x20, True), (0x44, True)])
def test_the_driver_says_clock_power_and_throttling(gpu, reasons, throttled):
    driver = Driver(reasons)
    driver_of = gpu(driver)
    assert driver_of.weather() == Weather(1755.0, 412.5, throttled)
    assert _driver() == "570.1"
    assert driver.asked == ["GPU-12-34"]


@pytest.mark.parametrize("driver", [Driver(broken=True), None], ids=["no driver", "not installed"])
def test_nobody_to_ask_is_no_throttling(gpu, driver):
    driver_of = gpu(driver)
    seen = driver_of.weather()
    assert math.isnan(seen.clock_mhz) and math.isnan(seen.watts) and not seen.throttled
    assert _driver() is None
