# syntax=docker/dockerfile:1.7
# One image for all roles of the shop: `docker run … shop:local commands`, `… relay` and so on.

FROM rust:1.95.0-slim-bookworm AS build
# rdkafka-sys compiles librdkafka (make, g++, OpenSSL's headers), aws-lc-sys and zstd-sys compile C.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
# The image has this toolchain; without the line rustup would fetch the lints as well.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /build
COPY . .
# The cache mounts keep crates and objects between builds, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --package shop \
    && install -D --mode=0755 target/release/shop /out/shop

FROM debian:bookworm-slim AS run
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/shop /usr/local/bin/shop
# Asks the admin port whether the role is ready, with nothing but bash: the image has no curl.
RUN printf '%s\n' \
        '#!/bin/bash' \
        'set -euo pipefail' \
        'exec 3<>"/dev/tcp/127.0.0.1/${1:-7409}"' \
        'printf "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" >&3' \
        'read -r _ status _ <&3' \
        '[[ "$status" == 200 ]]' \
        > /usr/local/bin/shop-ready \
    && chmod 0755 /usr/local/bin/shop-ready
# A number, so that orchestrators can see that it is not root.
USER 65532:65532
WORKDIR /tmp
# api, commands, queries, registry, admin
EXPOSE 7400 7401 7402 7404 7409
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["shop-ready"]
ENTRYPOINT ["shop"]
CMD ["--help"]
