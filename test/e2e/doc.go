// Package e2e tests docker-compose.yml and the Dockerfile. Without a build tag its tests compare the text of
// these files, and of the CI run, with the code; with the build tag e2e (`make e2e`) they run the files on a
// Docker engine.
package e2e
