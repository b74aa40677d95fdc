"""Reading the machine: what the system says, what it does not, and drivers that lie or hang."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
import trio
import trio.testing

from atmosphere.config import CostConfig
from atmosphere.cost import FixedMachine, Meter, Readings, machine
from atmosphere.cost.keeper import READ_EVERY_S, READ_TIMEOUT_S, STUCK_MAX, STUCK_PAUSE_S, CostKeeper
from atmosphere.cost.machine import SystemMachine
from atmosphere.cost.nvml import Nvml
from atmosphere.env import FixedEnv

MEMORY = SimpleNamespace(total=1000, available=250)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> SimpleNamespace:
    """A machine of the test's making."""
    state = SimpleNamespace(
        cpu=50.0, battery=None,
        routes="Iface Destination\nwlan0 00000000 0 0003 0 0 600\neth0 00000000 0 0003 0 0 100\n",
        carried={"eth0": SimpleNamespace(bytes_recv=0, bytes_sent=0)}, clock=Clock(), nmcli="no\n", asked=0,
        speed={"eth0": SimpleNamespace(speed=1000, isup=True, flags="up"),
               "lo": SimpleNamespace(speed=0, isup=True, flags="up,loopback")},
    )
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: state.cpu)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: MEMORY)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: state.battery)
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: state.carried)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: state.speed)
    routes = tmp_path / "route"
    monkeypatch.setattr(machine, "ROUTES", routes)

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        assert options["timeout"]
        assert command[-1] in ("eth0", "wlan0")
        state.asked += 1
        if isinstance(state.nmcli, Exception):
            raise state.nmcli
        return SimpleNamespace(stdout=state.nmcli)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setitem(sys.modules, "pynvml", None)

    def read() -> Readings:
        if state.routes is None:
            routes.unlink(missing_ok=True)
        else:
            routes.write_text(state.routes)
        return here.read()

    here = SystemMachine(state.clock)
    state.read = read
    return state


def test_what_the_system_says(system: SimpleNamespace) -> None:
    first = system.read()
    assert (first.cpu, first.memory, first.battery, first.gpu, first.metered) == (None, 0.75, None, None, False)
    assert (first.network.name, first.network.link_mbps, first.network.used_mbps) == ("eth0", 1000.0, None)
    assert set(first.unknown) == {"cpu", "gpu"}
    system.clock.now = 2.0
    system.carried["eth0"] = SimpleNamespace(bytes_recv=25_000_000, bytes_sent=1000)
    second = system.read()
    assert second.cpu == 0.5
    assert second.network.used_mbps == pytest.approx(100.0)
    assert set(second.unknown) == {"gpu"}


@pytest.mark.parametrize(("says", "metered", "reason"), [
    ("yes\n", True, ""),
    ("yes (guessed)\n", True, ""),
    ("no (guessed)\n", False, ""),
    ("unknown\n", None, "does not know it of eth0"),
    (FileNotFoundError(), None, "only NetworkManager tells this"),
    (subprocess.TimeoutExpired("nmcli", 2), None, "NetworkManager does not say (TimeoutExpired)"),
    (subprocess.CalledProcessError(8, "nmcli"), None, "NetworkManager does not say (CalledProcessError)"),
])
def test_metered_connections(system: SimpleNamespace, says: Any, metered: bool | None, reason: str) -> None:
    system.nmcli = says
    readings = system.read()
    assert readings.metered is metered
    assert reason in readings.unknown.get("metered", "")
    assert bool(reason) is ("metered" in readings.unknown)


def test_network_manager_is_asked_once_a_minute(system: SimpleNamespace) -> None:
    for _ in range(10):
        system.read()
    system.clock.now = 61.0
    system.read()
    assert system.asked == 2


def test_a_modem_is_metered(system: SimpleNamespace) -> None:
    system.routes = "Iface Destination\nwwan0 00000000 0 0003 0 0 600\n"
    assert system.read().metered is True
    assert system.asked == 0


def test_without_a_routing_table_the_busiest_interface_that_is_up(system: SimpleNamespace) -> None:
    system.routes = None
    assert system.read().network.name == "eth0"
    system.speed = {"lo": system.speed["lo"]}
    readings = system.read()
    assert readings.network is None
    assert "leads out" in readings.unknown["network"]
    assert "leads out" in readings.unknown["metered"]


def test_batteries(system: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    system.battery = SimpleNamespace(percent=17.4, power_plugged=False)
    found = system.read().battery
    assert (found.percent, found.plugged) == (17.4, False)
    system.battery = SimpleNamespace(percent=17.4, power_plugged=None)
    assert "whether" in system.read().unknown["battery"]
    monkeypatch.delattr(psutil, "sensors_battery")
    assert "does not tell" in system.read().unknown["battery"]


def test_a_system_that_refuses_is_not_an_error(system: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(psutil, "net_io_counters", refuse)
    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    readings = system.read()
    assert (readings.network, readings.memory) == (None, None)
    assert "refuses" in readings.unknown["memory"]


class FakeNvml(ModuleType):
    """The driver's library of a machine with *busy* GPUs."""

    class NVMLError(Exception):
        pass

    def __init__(self, *busy: int, fails: bool = False) -> None:
        super().__init__("pynvml")
        self.busy, self.fails = list(busy), fails

    def nvmlInit(self) -> None:
        if self.fails:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.busy)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"GPU {handle}"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        if self.fails:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(gpu=self.busy[handle])


@pytest.mark.parametrize(("library", "busy", "reason"), [
    (FakeNvml(80, 20), 0.5, ""),
    (FakeNvml(fails=True), None, "no NVIDIA GPU (Driver Not Loaded)"),
    (FakeNvml(), None, "no NVIDIA GPU"),
    (None, None, "is not installed"),
])
def test_gpus(monkeypatch: pytest.MonkeyPatch, library: FakeNvml | None, busy: float | None, reason: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library)
    reading = Nvml().read()
    assert reading.busy == busy
    assert reason in reading.reason
    assert bool(reason) is bool(reading.reason)


def test_a_gpu_that_is_lost_is_not_known_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(40)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    nvml = Nvml()
    assert nvml.read().busy == 0.4
    library.fails = True
    lost = nvml.read()
    assert (lost.busy, lost.names) == (None, ("GPU 0",))
    assert "GPU is lost" in lost.reason
    library.fails = False
    assert nvml.read().busy == 0.4


async def test_the_keeper_tells_what_has_changed(autojump_clock: trio.testing.MockClock) -> None:
    told: list[int] = []
    here = FixedMachine(Readings(cpu=0.1))
    keeper = CostKeeper(here, Meter(CostConfig()), FixedEnv(), lambda: told.append(keeper.meter.told_milli))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await trio.sleep(3 * READ_EVERY_S)
        assert told == []
        here.readings = Readings(cpu=0.1, metered=True)
        await trio.sleep(READ_EVERY_S + 0.1)
        assert told == [3000]
        nursery.cancel_scope.cancel()


@pytest.mark.logs_errors
async def test_a_driver_that_hangs_holds_nothing_up(autojump_clock: trio.testing.MockClock) -> None:
    class Hanging(FixedEnv):
        begun = 0

        async def run_abandonable(self, function: Any) -> Any:
            self.begun += 1
            await trio.sleep_forever()

    env = Hanging()
    keeper = CostKeeper(FixedMachine(Readings(cpu=1.0)), Meter(CostConfig()), env, lambda: None)
    with trio.fail_after(STUCK_MAX * (READ_TIMEOUT_S + STUCK_PAUSE_S) + 1):
        await keeper.run()
    assert env.begun == STUCK_MAX == keeper.stuck
    assert keeper.meter.told_milli == 1000
    assert all("hangs" in factor.why for factor in keeper.meter.factors() if not factor.known)


async def test_without_a_machine_the_settings_count() -> None:
    keeper = CostKeeper(None, Meter(CostConfig(multiplier=2.0)), FixedEnv(), lambda: None)
    await keeper.run()
    assert keeper.meter.told_milli == 2000
