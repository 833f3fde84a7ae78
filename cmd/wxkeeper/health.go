package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

type healthVerb struct {
	URL     string        `arg:"" optional:"" help:"Default: /readyz of WXKEEPER_HTTP_ADDR."`
	Timeout time.Duration `default:"5s" help:"How long to wait for the answer."`
}

func (healthVerb) Help() string {
	return `For the health check of a container without a shell and curl. With the environment of a worker it requests
that worker's page /readyz; with a URL it requests that URL. Exit code 0: the answer was 200. Exit code 1:
anything else, with one line that describes the cause.

If a failed check restarts the container, check /healthz: a worker that is not ready because NATS is away
needs no restart.

Examples:

    wxkeeper health
    wxkeeper health http://127.0.0.1:8080/healthz
`
}

func (v *healthVerb) Run(ctx context.Context, t *terminal) error {
	page, err := v.page()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return usage(fmt.Errorf("<url>: %q is not a URL", redact.URLs(page)))
	}
	shown := req.URL.Redacted()
	// Without the proxy of the environment, which is meant for calls of WeChat.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	var failed *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("not healthy: no answer from %s within %s", shown, v.Timeout)
	case errors.As(err, &failed):
		return fmt.Errorf("not healthy: %s: %w", shown, failed.Err)
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("not healthy: %s: %w", shown, err)
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not healthy: %s: %d %s", shown, resp.StatusCode, text)
	}
	safetext.Fprintf(t.out, "%s\n", text)
	return nil
}

// page is the URL to request.
func (v *healthVerb) page() (string, error) {
	if v.Timeout <= 0 {
		return "", usage(fmt.Errorf("--timeout: %s is not a positive duration", v.Timeout))
	}
	if v.URL != "" {
		u, err := url.Parse(v.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return "", usage(fmt.Errorf("<url>: %q is not an http or https URL, for example "+
				"http://127.0.0.1:8080/healthz", redact.URLs(v.URL)))
		}
		return v.URL, nil
	}
	cfg, err := config.Load(nil)
	if err != nil {
		return "", err
	}
	if cfg.HTTPAddr == "" {
		return "", setting.Errorf("WXKEEPER_HTTP_ADDR",
			"none: this worker serves no pages; give the URL of another worker")
	}
	return cfg.PagesURL() + "/readyz", nil
}
