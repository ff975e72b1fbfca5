# syntax=docker/dockerfile:1.7

# The proxy for images that ran Envoy: the binary is there as `envoy` too, the user is Envoy's, the
# entrypoint takes Envoy's arguments. Built on the Debian that runs it, so that glibc is the same.
ARG RUST_VERSION=1.95.0
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
ARG RUST_VERSION
ARG TARGETARCH
# The toolchain file asks for clippy and rustfmt, which a build does not need.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION} CARGO_INCREMENTAL=0
# make: jemalloc.
RUN apt-get update \
 && apt-get install -y --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The registry and the compiled dependencies live in cache mounts: a change of our code compiles our
# code only, and no layer carries them. The binary is copied out because a cache mount is not a layer.
# On arm64 jemalloc must know the largest page size of the kernels it will meet.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked,id=nuncio-target-${TARGETARCH} \
    if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
 && cargo build --release --locked --package nuncio --bin nuncio \
 && install -D target/release/nuncio /out/nuncio \
 # Function names stay for a backtrace; line tables would double the image.
 && strip --strip-debug /out/nuncio

FROM debian:${DEBIAN}-slim
# Upstream TLS that trusts the system's authorities finds them where Envoy's image has them.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# The ids of Envoy's image, which volumes and security policies already name.
RUN groupadd --system --gid 101 envoy \
 && useradd --system --uid 101 --gid 101 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin envoy \
 && install -d -o envoy -g envoy /etc/envoy /var/log/envoy
COPY --from=build /out/nuncio /usr/local/bin/nuncio
RUN ln -s nuncio /usr/local/bin/envoy
# As in Envoy's image, arguments alone mean the proxy's arguments.
COPY --chmod=0755 <<'EOF' /docker-entrypoint.sh
#!/bin/sh
set -e
case "${1:-}" in
  "" | -*) set -- envoy "$@" ;;
esac
exec "$@"
EOF
USER 101:101
ENV ENVOY_ADMIN_PORT=9901
EXPOSE 10000 9901
# Ready means: initial configuration is there and listeners accept. The image has no HTTP client; bash
# speaks enough of it. Kubernetes ignores this and probes by itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/\"$ENVOY_ADMIN_PORT\" && printf 'GET /ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ code _ <&3 && [ \"$code\" = 200 ]"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml"]
