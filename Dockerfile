# syntax=docker/dockerfile:1
# `make image BASE=… BUILD_BASE=…` takes other images in place of the first two stages.
ARG BUILD_BASE=python
ARG BASE=distroless

# Has pip. Python and Debian have the versions of the next stage: the compiled parts of packages must fit.
FROM docker.io/library/python:3.13-slim-trixie@sha256:3dd7cc108ec1493442514f5c2a871af6af0ec31d768ff6e378a93340c3b3db5f AS python
# Has no shell and no package manager.
FROM gcr.io/distroless/python3-debian13:nonroot@sha256:83aa8d4f74a4d7f7cf2d472054139bef71a927b76c680c0f2e1021d6b1d6d732 AS distroless

FROM ${BUILD_BASE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore PIP_TARGET=/opt/rescheduler
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python3 -m pip install --no-deps --require-hashes -r requirements/runtime.txt \
    && python3 -m pip install --no-deps --require-hashes -r requirements/build.txt --target /opt/build
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN PYTHONPATH=/opt/build python3 -m pip install --no-deps --no-build-isolation .
COPY tests/harness/image/slim.py tests/harness/image/
RUN python3 tests/harness/image/slim.py /opt/rescheduler \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/rescheduler

FROM ${BASE}
LABEL org.opencontainers.image.title="Rescheduler" \
      org.opencontainers.image.description="Drains nodes that failed or need maintenance, replacement first" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONPATH=/opt/rescheduler PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/rescheduler /opt/rescheduler
# Bases have no bytecode of the standard library, and the root of the container is read-only: each start would compile
# it again. The import also fails if a needed file is gone.
USER 0
RUN ["python3", "-c", "import rescheduler.app, rescheduler.cli.operator, rescheduler.cli.verify.verification, rescheduler.cli.storage.stored_versions"]
ENV PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["python3", "-m", "rescheduler"]
CMD ["run"]
