# One image for every process of a fleet: servers, Celery workers, beat. docs/how-to/fleet.md says how it is run.
#   docker build -t lazypix .

# Python and Debian of the tests. For a build that can be repeated exactly, add the digest that you looked at.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/lazypix
# The packages before the source: they change less often, and are taken from the layer before.
COPY requirements/fleet.txt requirements/
# pyvips comes as source; without libvips' headers that is Python alone, and pyvips-binary has the library.
RUN /opt/lazypix/bin/python -m pip install --require-hashes --only-binary :all: --no-binary pyvips \
        -r requirements/fleet.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
# The wheel is built by what the lock names (hatchling), and by nothing fetched for it.
RUN /opt/lazypix/bin/python -m pip wheel --no-deps --no-build-isolation -w /build/dist . \
    && /opt/lazypix/bin/python -m pip install --no-deps /build/dist/*.whl \
    && /opt/lazypix/bin/python -m pip uninstall --yes hatchling pip

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="lazypix" \
      org.opencontainers.image.description="Store an image once, ask for any size of it by URL" \
      org.opencontainers.image.licenses="MIT"
# The version is Debian's of this release; a security update must not wait for a line here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libjemalloc2 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 lazypix \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin lazypix \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data /config
COPY --from=build /opt/lazypix /opt/lazypix

# The allocator. As it comes, glibc's keeps what a mixed load of images freed; jemalloc with these settings stays flat
# (docs/performance.md). lazypix sets glibc's own as well as that by itself where nothing is preloaded, so
# LD_PRELOAD="" is no worse; what is preloaded works for Celery's processes too, which lazypix does not start.
ENV LD_PRELOAD=libjemalloc.so.2 \
    MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:2

# A container's own loopback reaches nobody, so it listens on all addresses; that needs LAZYPIX_API_KEYS and
# LAZYPIX_URLS, and without them it says so and ends.
ENV PATH=/opt/lazypix/bin:$PATH \
    HOME=/data \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LAZYPIX_HOST=0.0.0.0 \
    LAZYPIX_PORT=8000 \
    LAZYPIX_DATA=/data

USER 10001:10001
WORKDIR /data
# Written are only /data (uploads while they are received; everything, without a shared store) and /tmp: the rest of
# the root may be mounted read-only.
VOLUME ["/data"]
EXPOSE 8000
# It drains: what is being answered is finished, what is new goes to the next server.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"LAZYPIX_PORT\"]}/healthz', timeout=4)"]
CMD ["lazypix", "serve"]
