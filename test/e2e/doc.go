// Package e2e tests docker-compose.yml and the Dockerfile: here what the files say, and with the build tag e2e
// (`make e2e`) what they do on a real engine.
package e2e
