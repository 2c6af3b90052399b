# syntax=docker/dockerfile:1
# The image of the daemon: docs/install.md#in-a-container. A throw-away stage builds; the result has the binary, glibc,
# CA certificates and nothing else.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# release builds faster, for a trial.
ARG PROFILE=dist
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile "$PROFILE" && \
    install -D -m 0755 "target/$PROFILE/batchd" /image/usr/bin/batchd && \
    install -D -m 0644 -t /image/usr/share/licenses/batchd LICENSE-APACHE LICENSE-MIT && \
    install -d -m 0700 /state

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image /
# A new volume takes owner and mode from the image.
COPY --from=build --chown=65532:65532 /state /var/lib/batchd
USER 65532:65532
# The state, and beside it the socket by which `docker exec` reaches the daemon.
ENV STATE_DIRECTORY=/var/lib/batchd
VOLUME ["/var/lib/batchd"]
# Only with `[api] listen`.
EXPOSE 8765
# Whether the daemon answers; trouble of providers and webhooks is no reason to restart it.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["/usr/bin/batchd", "--quiet", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/batchd"]
CMD ["run"]
