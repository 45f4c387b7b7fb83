# Both programs in one small image: docker build -t gantry . && docker run gantry gantry-worker --help
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The queries were checked when schema/.sqlx was written; no database is needed here.
ENV SQLX_OFFLINE=true
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p gantry-api -p gantry-workers --bins \
    && install -D -t /out target/release/gantry-api target/release/gantry-worker

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gantry
COPY --from=build /out/ /usr/local/bin/
COPY LICENSE /usr/share/doc/gantry/
USER 10001
ENV GANTRY_LISTEN=0.0.0.0:8080 GANTRY_METRICS_LISTEN=0.0.0.0:9464 GANTRY_LOG_FORMAT=json
EXPOSE 8080 9464
STOPSIGNAL SIGTERM
CMD ["gantry-api"]
