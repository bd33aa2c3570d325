"""Jobs of a study on this machine: one at a time on each GPU, or one on the CPU.

A job is a process of its own that outlives this one: if the study is killed, its jobs go on, and the same command finds
them by their locks.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nnunet_livseg.core.allocator import ENVIRONMENT
from nnunet_livseg.study import job_state
from nnunet_livseg.study.job_state import DONE, RUNNING, JobState
from nnunet_livseg.study.run_job import SLOT
from nnunet_livseg.study.status import all_states
from nnunet_livseg.study.study_jobs import StudyPlan
from nnunet_livseg.training.checkpoints import TO_BE_CONTINUED

ATTEMPTS = 3  # at a job that a signal has killed, most often for its memory
POLL_S = 0.5
LOOK_S = 10  # between looks at jobs that others run
CPU = "cpu"


@dataclass
class LocalEngine:
    """Runs what is missing of a study.

    Args:
        plan: The study.
        say: Called with a line for the user when something begins or ends.
    """

    plan: StudyPlan
    say: Callable[[str], None] = print
    _children: dict[str, tuple[subprocess.Popen, str]] = field(default_factory=dict)  # by job, with its slot
    _kills: dict[str, int] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)  # jobs that failed in this run
    _told: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Do everything that can be done; returns when nothing is running any more.

        Raises:
            KeyboardInterrupt: By the user; the jobs have been told to save and leave.
        """
        try:
            while self._step():
                self._wait()
        except KeyboardInterrupt:
            self._stop()
            raise

    def _step(self) -> bool:
        """Start what can be started; whether there is something to wait for."""
        states = all_states(self.plan)
        others = {n: state for n, state in states.items() if state.word == RUNNING and n not in self._children}
        for name, state in others.items():
            self._tell(f"waits for {name}, which is running {state.remark}")
        free = [slot for slot in self._slots() if slot not in self._taken(others)]
        for name in self._startable(states):
            if not free:
                break
            self._start(name, free.pop(0))
        return bool(self._children or others)

    def _startable(self, states: dict[str, JobState]) -> Iterator[str]:
        """Jobs in their order that are not done and need nothing that is not."""
        for name, state in states.items():
            if state.word in (DONE, RUNNING) or name in self._over or name in self._children:
                continue
            if all(states[needed].word == DONE for needed in self.plan.needed_by(name)):
                yield name

    def _slots(self) -> list[str]:
        if self.plan.study.device != "cuda":
            return [CPU]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        ids = [one.strip() for one in visible.split(",") if one.strip()] or [str(i) for i in range(64)]
        return ids[: self.plan.study.gpus]

    def _taken(self, others: dict[str, JobState]) -> set[str]:
        """Slots of our children, and of jobs that an earlier run of this study has started."""
        slots = {slot for _, slot in self._children.values()} | {state.slot for state in others.values()}
        return slots | ({CPU} if others else set())  # on a CPU, a training by hand takes all of it

    def _start(self, name: str, slot: str) -> None:
        log = job_state.log_file(self.plan, name)
        log.parent.mkdir(parents=True, exist_ok=True)
        self.say(f"{time.strftime('%H:%M:%S')}  starts {name}")
        command = [sys.executable, "-m", "nnunet_livseg.cli", "study", "job", str(self.plan.study.path), name]
        with log.open("ab") as file:
            file.write(f"\n--- {time.strftime('%Y-%m-%d %H:%M:%S')}: attempt on slot {slot}\n".encode())
            file.flush()
            child = subprocess.Popen(
                command,
                env=self._environment(slot),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the study, which tells its jobs
            )
        self._children[name] = (child, slot)

    def _environment(self, slot: str) -> dict[str, str]:
        env = os.environ | {SLOT: slot, "PYTHONUNBUFFERED": "1"}
        if self.plan.study.device == "cuda":
            return env | {"CUDA_VISIBLE_DEVICES": slot}
        few = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}  # a worker imports torch again
        few |= {"nnUNet_npp": "0", "nnUNet_nps": "0"}
        return {**few, **ENVIRONMENT, **env}

    def _wait(self) -> None:
        """Until one of our jobs has ended, or it is time to look at those of others."""
        until = time.monotonic() + LOOK_S
        while time.monotonic() < until:
            ended = [name for name, (child, _) in self._children.items() if child.poll() is not None]
            for name in ended:
                child, _ = self._children.pop(name)
                self._ended(name, child.returncode)
            if ended:
                return
            time.sleep(POLL_S)

    def _ended(self, name: str, status: int) -> None:
        if status == 0 and all_states(self.plan)[name].word == DONE:
            self.say(f"{time.strftime('%H:%M:%S')}  done   {name}")
        elif status == TO_BE_CONTINUED:
            self._tell(f"{name} was told to stop and will be continued")
        elif status < 0:
            self._killed(name, signal.Signals(-status).name)
        else:
            self._over.add(name)
            log = job_state.log_file(self.plan, name)
            if not job_state.failure(self.plan, name) and not self._is_taken(name):
                job_state.note_failure(self.plan, name, job_state.last_lines(log) or f"exit status {status}")
            self.say(f"{time.strftime('%H:%M:%S')}  failed {name}: {log}")

    def _is_taken(self, name: str) -> bool:
        """Whether another process was faster at starting this job."""
        taken = all_states(self.plan)[name].word in (RUNNING, DONE)
        if taken:
            self._over.discard(name)
        return taken

    def _killed(self, name: str, by: str) -> None:
        self._kills[name] = self._kills.get(name, 0) + 1
        if self._kills[name] < ATTEMPTS:
            self.say(f"{time.strftime('%H:%M:%S')}  killed {name} ({by}); starts again")
            return
        self._over.add(name)
        said = job_state.last_lines(job_state.log_file(self.plan, name), 4)
        reason = f"{by} has killed it {ATTEMPTS} times, most likely for lack of memory. It said last:\n{said}"
        job_state.note_failure(self.plan, name, reason)
        self.say(f"{time.strftime('%H:%M:%S')}  failed {name}: {by}")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.say(f"{time.strftime('%H:%M:%S')}  {text}")

    def _stop(self) -> None:
        """Tell the jobs to save and leave, and wait until they have."""
        self.say("stopping: the running jobs save their state")
        for child, _ in self._children.values():
            child.send_signal(signal.SIGTERM)
        for child, _ in self._children.values():
            child.wait()
