# The appliance as a container, from the sources: docker build -t appliance .
# site/docs/container.md tells how to run it. Another way, without Debian, shell and Dockerfile:
# appliance build --target oci.
#
# Any Debian with Python 3.11 will do. A tag can move: PYTHON=python@sha256:... holds it still.
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
RUN command -v cc >/dev/null \
 || { apt-get update -qq \
   && apt-get install -y -qq --no-install-recommends gcc libc6-dev \
   && rm -rf /var/lib/apt/lists/*; }
WORKDIR /src
# Every package by version and hash, what builds and what runs apart.
COPY container/build.lock container/requirements.lock container/
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install -q --no-cache-dir --disable-pip-version-check \
      --require-hashes -r container/build.lock \
 && python3 -m venv --without-pip /opt/appliance \
 && /opt/build/bin/pip --python /opt/appliance/bin/python install -q --no-cache-dir \
      --disable-pip-version-check --require-hashes -r container/requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY appliance appliance
# The packet path is compiled by mypyc; without it there is no image. OPTIMIZE: as for gcc -O.
ARG OPTIMIZE=3
RUN APPLIANCE_COMPILE=1 APPLIANCE_OPTIMIZE=${OPTIMIZE} /opt/build/bin/pip \
      --python /opt/build/bin/python wheel -q --no-cache-dir --disable-pip-version-check \
      --no-deps --no-build-isolation -w /wheels . \
 && /opt/build/bin/pip --python /opt/appliance/bin/python install -q --no-cache-dir \
      --disable-pip-version-check --no-deps --no-index /wheels/*.whl \
 && find /opt/appliance -name __pycache__ -type d -prune -exec rm -rf {} + \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/appliance/lib

FROM ${PYTHON}
LABEL org.opencontainers.image.title="appliance" \
      org.opencontainers.image.description="A whole internet host in one process: TCP/IP, DNS and HTTP" \
      org.opencontainers.image.licenses="ISC"
COPY --from=build /opt/appliance /opt/appliance
WORKDIR /srv
COPY appliance.toml ./
COPY site site
COPY zones zones
# Nobody's, and of root's group, so that root without any capability can keep state there as well.
RUN mkdir -m 0770 state keys && chown 65534:0 state keys
USER 65534:65534
VOLUME /srv/state
EXPOSE 8080/tcp 8443/tcp 5353/udp 5353/tcp 8853/tcp
STOPSIGNAL SIGTERM
# A real query and a real request; as a host of its own it is asked on its control socket.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
  CMD ["/opt/appliance/bin/python", "-P", "-m", "appliance.image.health"]
# Words are those of `appliance serve`, or another command: docker run appliance check.
ENTRYPOINT ["/opt/appliance/bin/python", "-P", "-m", "appliance.image.entry"]
