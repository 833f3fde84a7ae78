package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wxkeeper/wxkeeper/internal/utf8text"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
)

const (
	// The limits of the requests in progress in one worker. Most are answered from memory; the others wait for
	// one read at the leader, and reports wait for a refresh.
	maxReports = 16384
	maxGets    = 4096
	maxSigns   = 4096 // jssdk.sign and card.sign together
)

// service answers the request-reply subjects as one NATS micro service in one queue group.
type service struct {
	nc        *nats.Conn
	accounts  *accounts
	prefix    string
	version   string
	worker    string
	resolver  *resolver
	refresher *refresher
	lookup    *lookup
	signer    *signer
	status    *status
	metrics   *metrics
	log       *slog.Logger

	resolves *gate // of code.resolve
	reports  *gate // of credential.refresh
	gets     *gate // of credential.get
	signs    *gate // of jssdk.sign and card.sign

	svc      micro.Service
	ctx      context.Context // of the requests in progress: ends when a stop gives them up
	cancel   context.CancelFunc
	pool     *pool       // runs the requests that may wait for WeChat
	stopping atomic.Bool // reports are refused
	counts   map[string]*counts
}

// counts are the counters of one endpoint that `nats micro stats` shows. The counters of micro itself do not know
// the outcome, because most requests are answered after the handler has returned.
type counts struct{ OK, Errors atomic.Uint64 }

// start registers the endpoints. Requests arrive before it returns.
func (s *service) start() error {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.pool = newPool(s.resolver.flying.limit)
	endpoints := []struct {
		subject, request, reply string
		handle                  func(subject string) micro.HandlerFunc
	}{
		{messages.SubjectCodeResolve, `{"appid"?,"openid","code_ticket"}`,
			"the answer of POST /intp/marketcode/tickettocode", s.pooled(s.codeResolve, s.resolves)},
		{messages.SubjectCredentialGet, `{"appid"?,"kind"?}`, "the record of the bucket, and its revision",
			s.pooled(s.credentialGet, s.gets)},
		{messages.SubjectCredentialRefresh, `{"appid"?,"kind"?,"revision"?,"value_sha256"?}`,
			`{"appid","kind","revision","generation","expires_at","refreshed","reason"}`,
			s.pooled(s.credentialRefresh, s.reports)},
		{messages.SubjectJSSDKSign, `{"appid"?,"url"}`, `{"appId","timestamp","nonceStr","signature"}`,
			s.pooled(s.jssdkSign, s.signs)},
		{messages.SubjectCardSign, `{"appid"?,"action"?,"card_id"?,"code"?,"openid"?,"shop_id"?,"card_type"?,…}`,
			"the fields of cardExt, or of wx.chooseCard, with their signature", s.pooled(s.cardSign, s.signs)},
		{messages.SubjectStatus, `{"appid"?}`, "every credential: state, reason, advice, times, attempts, calls today",
			s.inline(s.statusOf)},
	}
	s.counts = make(map[string]*counts)
	for _, e := range endpoints {
		s.counts[e.subject], s.counts[e.subject+ofAccount] = new(counts), new(counts)
	}
	svc, err := micro.AddService(s.nc, micro.Config{
		Name: s.prefix, Version: s.version, QueueGroup: s.prefix,
		Description: "wxkeeper: credentials and marketing codes of WeChat accounts",
		Metadata:    map[string]string{"worker": s.worker},
		StatsHandler: func(e *micro.Endpoint) any {
			c := s.counts[strings.TrimPrefix(e.Subject, s.prefix+".")]
			return map[string]uint64{"ok": c.OK.Load(), "errors": c.Errors.Load()}
		},
		ErrorHandler: func(_ micro.Service, e *micro.NATSError) {
			if errors.Is(e, nats.ErrMsgNoReply) { // its sender must not be able to fill the log
				s.log.Debug("request without a reply subject", "subject", e.Subject)
				return
			}
			s.log.Error("NATS error on an endpoint", "subject", e.Subject, "error", e.Description)
		},
	})
	if err != nil {
		return fmt.Errorf("register the NATS service: %w", err)
	}
	s.svc = svc
	for _, e := range endpoints {
		handle := func(subject string) micro.HandlerFunc { return s.answerable(subject, e.handle(subject)) }
		name := strings.ReplaceAll(e.subject, ".", "_")
		request, err1 := schema(e.subject + ".request")
		reply, err2 := schema(e.subject + ".reply")
		meta := micro.WithEndpointMetadata(map[string]string{
			"request": e.request, "reply": e.reply, "request_schema": request, "reply_schema": reply,
		})
		if err := errors.Join(
			err1, err2,
			svc.AddEndpoint(name, handle(e.subject), micro.WithEndpointSubject(s.prefix+"."+e.subject), meta),
			svc.AddEndpoint(name+"_appid", handle(e.subject+ofAccount),
				micro.WithEndpointSubject(s.prefix+"."+e.subject+ofAccount), meta),
		); err != nil {
			_ = svc.Stop()
			return fmt.Errorf("register the endpoint %s: %w", e.subject, err)
		}
	}
	return s.nc.Flush()
}

// stop leaves the queue group and waits until the requests in progress are answered. When ctx ends it gives up
// those that are left: they are answered with an error at once.
func (s *service) stop(ctx context.Context) {
	s.stopping.Store(true)
	_ = s.svc.Stop() // unsubscribes
	s.flush()
	// No more requests arrive. Barrier calls its function when the requests that have arrived were handed to
	// handlers.
	handedOver := make(chan struct{})
	if s.nc.Barrier(func() { close(handedOver) }) != nil {
		close(handedOver) // the connection is closed, so no reply can be sent
	}
	select {
	case <-handedOver:
	case <-ctx.Done():
	}
	answered := make(chan struct{})
	go func() { s.pool.stop(); close(answered) }()
	select {
	case <-answered:
	case <-ctx.Done():
		s.log.Warn("requests in progress given up")
	}
	s.cancel()
	<-answered
	s.flush()
}

// flush waits for a second at most until the server has received what was sent.
func (s *service) flush() {
	if s.nc.IsConnected() {
		_ = s.nc.FlushTimeout(time.Second)
	}
}

// decode decodes a request. An empty body counts as an empty object, for `nats req wechat.status ""`.
func decode(body []byte, into any) error {
	if len(body) > messages.MaxRequest {
		return messages.Errorf(messages.InvalidRequest, "the request has %d bytes, at most %d are allowed", len(body),
			messages.MaxRequest)
	}
	text, err := utf8text.Decode(body, "the request")
	switch encoding, _ := errors.AsType[*utf8text.Error](err); {
	case encoding != nil && encoding.Encoding == utf8text.Unknown:
		text = body // the check of the field names the byte that is wrong
	case err != nil:
		return messages.Errorf(messages.InvalidRequest, "%v", err)
	case len(text) == 0:
		return nil
	}
	err = json.Unmarshal(text, into)
	var mistyped *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &mistyped) && mistyped.Field != "":
		return messages.Errorf(messages.InvalidRequest, "%s must be a JSON %s", mistyped.Field,
			jsonType(mistyped.Type.Kind().String()))
	default:
		return messages.Errorf(messages.InvalidRequest, "the request is not a JSON object")
	}
}

func jsonType(kind string) string {
	if kind == "string" {
		return kind
	}
	return "number"
}

// respond sends the reply. An error is sent as a normal reply with the error headers, because micro's own method
// for errors must be called from the endpoint's goroutine.
func (s *service) respond(r *request, reply any, err error) {
	outcome := "ok"
	var body []byte
	header := micro.Headers{messages.HeaderReply: {messages.ReplyVersion}}
	if err == nil {
		if raw, ok := reply.(json.RawMessage); ok {
			body = raw // WeChat's own answer, unchanged
		} else if body, err = json.Marshal(reply); err != nil {
			err = messages.Errorf(messages.Upstream, "encode the reply: %v", err)
		}
	}
	if err == nil && int64(len(body)) > s.nc.MaxPayload() {
		err = messages.Errorf(messages.Upstream, "the reply has %d bytes, and NATS allows %d", len(body), s.nc.MaxPayload())
	}
	if err != nil {
		var refusal *messages.Error
		if !errors.As(asRefusal(err), &refusal) {
			refusal = messages.Errorf(messages.Upstream, "internal error")
		}
		outcome = string(refusal.Symbol)
		body, _ = json.Marshal(refusal) // cannot fail: it has only strings and numbers
		maps.Copy(header, refusal.Header())
	}
	c := s.counts[r.endpoint]
	if outcome == "ok" {
		c.OK.Add(1)
	} else {
		c.Errors.Add(1)
	}
	s.metrics.requests.WithLabelValues(strings.TrimSuffix(r.endpoint, ofAccount), outcome).Inc()
	if err := r.Respond(body, micro.WithHeaders(header)); err != nil {
		s.log.Warn("reply not sent", "subject", r.endpoint, "error", err)
	}
}

func (s *service) codeResolve(ctx context.Context, r *request) (any, error) {
	began := time.Now()
	defer func() { s.metrics.resolveT.Observe(time.Since(began).Seconds()) }()
	var req messages.ResolveCodeRequest
	if err := decode(r.Data(), &req); err != nil {
		return nil, err
	}
	if err := checkField("openid", req.OpenID, messages.MaxOpenID); err != nil {
		return nil, err
	}
	if err := checkField("code_ticket", req.CodeTicket, messages.MaxCodeTicket); err != nil {
		return nil, err
	}
	a, err := s.accountOf(r, req.AppID)
	if err != nil {
		return nil, err
	}
	return s.resolver.resolve(ctx, a, req.OpenID, req.CodeTicket)
}

// checkField checks a text of a request. Its error does not show the text.
func checkField(name, value string, most int) error {
	switch {
	case value == "":
		return messages.Errorf(messages.InvalidRequest, "%s is missing", name)
	case len(value) > most:
		return messages.Errorf(messages.InvalidRequest, "%s has %d bytes, at most %d are allowed", name, len(value),
			most)
	}
	for i := range len(value) {
		if b := value[i]; b <= ' ' || b > '~' {
			return messages.Errorf(messages.InvalidRequest, "%s has a byte at %d that is not printable ASCII", name, i)
		}
	}
	return nil
}

// credential finds the account and the kind of a request. The kind is access_token if the request has none.
func (s *service) credential(r *request, appid string, kind messages.Kind) (*Account, messages.Kind, error) {
	a, err := s.accountOf(r, appid)
	if err != nil {
		return nil, "", err
	}
	k := cmp.Or(kind, messages.AccessToken)
	switch {
	case !k.Valid():
		return nil, "", messages.Errorf(messages.UnknownKind, "unknown kind %.64q: the kinds are %s, %s and %s", kind,
			messages.AccessToken, messages.JSAPITicket, messages.WXCardTicket)
	case !a.keeps(k):
		return nil, "", messages.Errorf(messages.NotConfigured, "%s is not kept for account %s (WECHAT_TICKETS)", k,
			a.AppID)
	}
	return a, k, nil
}

func (s *service) credentialGet(ctx context.Context, r *request) (any, error) {
	var req messages.GetCredentialRequest
	if err := decode(r.Data(), &req); err != nil {
		return nil, err
	}
	a, kind, err := s.credential(r, req.AppID, req.Kind)
	if err != nil {
		return nil, err
	}
	return s.lookup.current(ctx, a, kind)
}

func (s *service) credentialRefresh(ctx context.Context, r *request) (any, error) {
	var req messages.RefreshCredentialRequest
	if err := decode(r.Data(), &req); err != nil {
		return nil, err
	}
	a, kind, err := s.credential(r, req.AppID, req.Kind)
	if err != nil {
		return nil, err
	}
	if n := len(req.ValueSHA256); n != 0 && (n != 64 || strings.Trim(req.ValueSHA256, "0123456789abcdefABCDEF") != "") {
		return nil, messages.Errorf(messages.InvalidRequest, "value_sha256 must be 64 hexadecimal digits")
	}
	if s.stopping.Load() {
		return nil, errStopping
	}
	report := policy.Report{Revision: req.Revision, ValueSHA256: strings.ToLower(req.ValueSHA256)}
	if !report.FromOperator() {
		report.SentAt = sentAt(s.refresher.clock.Now(), req.SentAt)
	}
	o, err := s.refresher.report(ctx, a, kind, report)
	if err != nil {
		return nil, err
	}
	return messages.Refreshed{
		AppID: a.AppID, Kind: kind, Revision: o.current.Revision, Generation: o.current.Generation,
		ExpiresAt: o.current.ExpiresAt, Refreshed: o.reason == messages.ReasonRefreshed, Reason: o.reason,
	}, nil
}

// maxCallAge is how old a refused call may be when its report arrives.
const maxCallAge = time.Minute

// sentAt is the time at which a refused call was sent: as the report says, unless that is in the future or too long
// ago, because the consumer's clock is wrong. Then, and if the report does not say it, it is now.
func sentAt(now, said time.Time) time.Time {
	if said.After(now) || said.Before(now.Add(-maxCallAge)) {
		return now
	}
	return said
}

func (s *service) statusOf(_ context.Context, r *request) (any, error) {
	var req messages.StatusRequest
	if err := decode(r.Data(), &req); err != nil {
		return nil, err
	}
	if r.account == nil && req.AppID == "" {
		return s.status.of(""), nil
	}
	a, err := s.accountOf(r, req.AppID)
	if err != nil {
		return nil, err
	}
	return s.status.of(a.AppID), nil
}
