"""nnUNetv2_train on a CPU with few threads: 2.4 times as fast as nnU-Net alone, on a processor with bfloat16.

    python benchmarks/train_on_cpu.py [--threads N] [--float32] DATASET CONFIGURATION FOLD -tr TRAINER -p PLANS [--c]

All other arguments are nnUNetv2_train's own. Convolutions run with the channels last in memory, and in bfloat16
(autocast) where the processor has it; elsewhere it would take twice the time of float32. ``--float32`` does without
bfloat16, so that trainings of several machines are alike. Weights, losses and checkpoints stay float32, and any other
command goes on with them. Every checkpoint of our trainers also leaves its weights alone beside it
(``weights/epoch_0010.safetensors``).
"""

import sys
from pathlib import Path

import torch
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from safetensors.torch import save_file

from nnunet_livseg.core.files import atomic_path
from nnunet_livseg.inference.devices import multiplies_bfloat16, put_channels_last
from nnunet_livseg.trainers import LivSegTrainer


class FastTraining:
    """What is put on the trainers, nnU-Net's own and ours: nnU-Net finds them by name."""

    initialize, save_checkpoint = nnUNetTrainer.initialize, LivSegTrainer.save_checkpoint
    float32 = False  # on every processor

    def initialized(self: nnUNetTrainer) -> None:
        """As before; then the network is fast."""
        FastTraining.initialize(self)
        put_channels_last(self.network, bfloat16=multiplies_bfloat16() and not FastTraining.float32)

    def saved(self: LivSegTrainer, filename: str) -> None:
        """As before; then the weights alone."""
        FastTraining.save_checkpoint(self, filename)
        network = self.bare_network()
        tensors = [*network.named_parameters(), *network.named_buffers()]  # each once; some have two names
        weights = {name: tensor.detach().contiguous() for name, tensor in tensors}
        name = f"epoch_{self.current_epoch + 1:04d}.safetensors"
        with atomic_path(Path(self.output_folder) / "weights" / name) as temporary:
            save_file(weights, temporary)


def main() -> None:
    """Few threads, then nnU-Net's own entry point."""
    threads = 1
    if "--float32" in sys.argv:
        sys.argv.remove("--float32")
        FastTraining.float32 = True
    if "--threads" in sys.argv:
        at = sys.argv.index("--threads")
        threads = int(sys.argv[at + 1])
        del sys.argv[at : at + 2]
    torch.set_num_threads(threads)
    torch.set_num_threads = lambda number: None  # nnU-Net takes all cores
    nnUNetTrainer.initialize, LivSegTrainer.save_checkpoint = FastTraining.initialized, FastTraining.saved
    sys.argv += ["-device", "cpu"]
    run_training_entry()


if __name__ == "__main__":
    main()
