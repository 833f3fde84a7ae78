# The image of wxkeeper: one static binary, and the root certificates for TLS to api.weixin.qq.com.
# A test checks that the Go version is the version in go.mod, or a later patch of it. `make pin-images` adds the digest.
ARG GO_IMAGE=golang:1.26.8-alpine
FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The output of `wxkeeper version`. The build context has no git data, so `make image` passes both as arguments.
ARG VERSION=""
ARG COMMIT=""
RUN CGO_ENABLED=0 go build -trimpath -o /out/wxkeeper -ldflags=" \
    -X github.com/wxkeeper/wxkeeper/internal/buildinfo.linkedVersion=${VERSION} \
    -X github.com/wxkeeper/wxkeeper/internal/buildinfo.linkedCommit=${COMMIT}" ./cmd/wxkeeper

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/wxkeeper /usr/local/bin/wxkeeper
ENV PATH=/usr/local/bin
# Paths in the environment are relative to this directory, see docker-compose.yml.
WORKDIR /etc/wxkeeper
USER 65532:65532
ENTRYPOINT ["wxkeeper"]
CMD ["run"]
