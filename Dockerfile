# docker build -t rockpool . && docker run -v rockpool:/data -p 3333:3333 -p 9333:9333 -p 127.0.0.1:9332:9332 \
#     -e ROCKPOOL_NETWORK=testnet4 -e ROCKPOOL_BITCOIND=http://user:password@host:48332 rockpool
FROM rust:1-slim-bookworm AS build
WORKDIR /rockpool
COPY dist/setup dist/setup
RUN dist/setup
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update -q && apt-get install -y -q --no-install-recommends libstdc++6 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 9333 --user-group --home-dir /data --no-create-home rockpool \
    && install -d -m 750 -o rockpool -g rockpool /data
COPY --from=build /rockpool/target/release/rockpool /usr/bin/rockpool
# Within the container's own network; what of it is published is the operator's to say.
ENV ROCKPOOL_DATADIR=/data ROCKPOOL_HTTP=0.0.0.0:9332
USER rockpool
VOLUME /data
EXPOSE 3333 9333 9332
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["rockpool", "status", "--datadir", "/data"]
ENTRYPOINT ["rockpool"]
CMD ["run"]
