# CPU:   docker build -t livseg .
# CUDA:  docker build -t livseg --build-arg TORCH=cu126 .
#        (any CUDA version that PyTorch has builds for; the driver of the host must support it)
#
# The two commands of the README, in the folder with your files:
#   docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" livseg segment ct.nii.gz -o result
#   docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" livseg demo
# With a GPU, add: --gpus all --shm-size=8g
# nnU-Net's own commands: docker run --rm ... --entrypoint nnUNetv2_train livseg 3 3d_fullres 0 -tr DPCNetTrainer
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# torch first, from the index of its builds: the next step would take the default build, and changes less often than ours
# hadolint ignore=DL3013
RUN pip install torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}"

WORKDIR /opt/nnunet_livseg
COPY pyproject.toml README.md LICENSE ./
COPY nnunet_livseg nnunet_livseg
# hadolint ignore=DL3013
RUN pip install ".[dicom]" && livseg list --no-parameters

# any user may write there, so that results belong to whoever starts the container
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    nnUNet_raw=/data/nnUNet_raw nnUNet_preprocessed=/data/nnUNet_preprocessed nnUNet_results=/data/nnUNet_results
WORKDIR /data
ENTRYPOINT ["livseg"]
CMD ["--help"]
