# llmd for linux/amd64 and linux/arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 --target llmd --tag ghcr.io/llmd-dev/llmd:v0.1.0 --push .
#   docker buildx build --platform linux/amd64,linux/arm64 --target llmd-epp --tag ghcr.io/llmd-dev/llmd-epp:v0.1.0 --push .
#   docker buildx build --platform linux/amd64,linux/arm64 --target llmd-routing-sidecar --tag ghcr.io/llmd-dev/llmd-routing-sidecar:v0.1.0 --push .
# Without Docker, for the machine's own architecture: cargo xtask image --release --push ghcr.io/llmd-dev

# Runs as the target's architecture (emulated where it is another): aws-lc-rs builds C, and a cross compiler for it is
# more to keep than a slower build.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake clang && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package llmd && strip target/release/llmd
# KServe starts upstream's picker by its path
RUN mkdir -p /epp/app /epp/usr/local/bin && cp target/release/llmd /epp/usr/local/bin/llmd-epp && ln -s /usr/local/bin/llmd-epp /epp/app/epp

# a number as user, so that runAsNonRoot can be checked; any other user works as well
# The name of the program selects the role where upstream's charts pass only arguments.
FROM gcr.io/distroless/cc-debian12:nonroot AS llmd-epp
COPY --from=build /epp /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/llmd-epp"]

FROM gcr.io/distroless/cc-debian12:nonroot AS llmd-routing-sidecar
COPY --from=build /src/target/release/llmd /usr/local/bin/llmd-routing-sidecar
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/llmd-routing-sidecar"]

FROM gcr.io/distroless/cc-debian12:nonroot AS llmd
COPY --from=build /src/target/release/llmd /usr/local/bin/llmd
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/llmd"]
