# The two commands of the README in a container, without root at run time:
#
#   docker build -t gaitnet .                                            for CUDA and the CPU: PyTorch brings CUDA along
#   docker build -t gaitnet --build-arg TORCH_INDEX=URL .                for the CPU alone, gigabytes less: URL is the
#                                                                        index of CPU builds on PyTorch's install page
#   mkdir -p -m 777 out; docker run --rm -v "$PWD/out:/out" gaitnet      sh train_net.sh, on walkers; keeps the results
#   docker run --rm gaitnet sh tests/run.sh                              the tests (they install what they need on top)
#   docker run --rm --gpus all -v /my/data:/data -e GAITNET_DATA=/data gaitnet sh train_net.sh casiab --gpu 0
#
# Data, experiments and results are folders of /home/gaitnet/gaitnet; mount what is to outlive the container, which user
# 1000 is to be able to write to.
FROM python:3.12-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends git graphviz \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 gaitnet \
    && install -d -o gaitnet -g gaitnet /home/gaitnet/gaitnet /out
USER gaitnet
WORKDIR /home/gaitnet/gaitnet

# The packages are a layer of their own, which changes to the code leave alone.
ARG TORCH_INDEX=
COPY --chown=gaitnet requirements.txt requirements.lock pyproject.toml README.md LICENSE ./
COPY --chown=gaitnet tools/setup.sh tools/
COPY --chown=gaitnet caffe/__init__.py caffe/
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL="$TORCH_INDEX" sh tools/setup.sh

COPY --chown=gaitnet . .
RUN sh tools/setup.sh && ln -s /out results
CMD ["sh", "train_net.sh"]
