# The image of wxkeeper: one static binary and the authorities that signed the certificate of api.weixin.qq.com.
# The Go version is that of go.mod or a later patch of it; a test compares them.
FROM golang:1.26.8-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/wxkeeper ./cmd/wxkeeper

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/wxkeeper /usr/local/bin/wxkeeper
ENV PATH=/usr/local/bin
# Paths in the environment are relative to here, see docker-compose.yml.
WORKDIR /etc/wxkeeper
USER 65532:65532
ENTRYPOINT ["wxkeeper"]
CMD ["run"]
