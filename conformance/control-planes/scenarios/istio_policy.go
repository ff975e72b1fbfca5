package scenarios

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"nuncio/conformance/control-planes/kit"
)

// issuer signs tokens with a key of its own.
type issuer struct {
	t    *kit.T
	name string
	key  *rsa.PrivateKey
}

func newIssuer(t *kit.T, name string) *issuer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	t.OK(err, "key")
	return &issuer{t, name, key}
}

// keys is the issuer's JWKS.
func (i *issuer) keys() string {
	number := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	return fmt.Sprintf(`{"keys":[{"kty":"RSA","alg":"RS256","use":"sig","kid":"1","n":%q,"e":%q}]}`,
		number(i.key.N), number(big.NewInt(int64(i.key.E))))
}

// token is a signed token; claims are over issuer, subject and expiry.
func (i *issuer) token(claims map[string]any) string {
	all := map[string]any{"iss": i.name, "sub": "someone", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	payload, err := json.Marshal(all)
	i.t.OK(err, "claims")
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"1","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	i.t.OK(err, "signature")
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// waypointJWT: who has no token, a bad one, a good one, and one with the wrong claims.
func waypointJWT(m *mesh) {
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, backend)
	inline, fetched, stranger := newIssuer(m.T, "inline.test"), newIssuer(m.T, "fetched.test"), newIssuer(m.T, "inline.test")
	keys := m.app("keys-0", false, "service: keys, app: keys, version: v1")
	keys.handle = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/keys" {
			fmt.Fprint(w, fetched.keys())
		} else {
			w.WriteHeader(http.StatusNotFound)
		}
		return true
	}
	// Istiod fetches the keys of an issuer that gives an address, and goes on when there are none.
	m.istiod.Apply(fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: app, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: app}]
  jwtRules:
  - issuer: inline.test
    jwks: '%[1]s'
    outputClaimToHeaders: [{header: x-sub, claim: sub}]
    forwardOriginalToken: true
  - issuer: broken.test
    jwksUri: http://%[2]s:8080/broken
  - issuer: fetched.test
    jwksUri: http://%[2]s:8080/keys
    audiences: [app]
    fromHeaders: [{name: x-token, prefix: "token "}]
    fromParams: [token]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: app, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: app}]
  action: ALLOW
  rules:
  - to: [{operation: {paths: [/open]}}]
  - from: [{source: {requestPrincipals: [inline.test/*, fetched.test/*], principals: [cluster.local/ns/default/sa/curl]}}]
    to: [{operation: {paths: [/closed]}}]
  - to: [{operation: {paths: [/staff]}}]
    when: [{key: "request.auth.claims[groups]", values: [staff]}]
`, inline.keys(), keys.ip))
	m.start()
	_, z := m.client("curl")
	_, other := m.client("other")
	client := z.Client(appHTTP, true)
	bearer := func(token string) []string { return []string{"authorization", "Bearer " + token} }

	m.expect("no token where none is needed", client, status(http.StatusOK), "/open")
	m.expect("no token where one is needed", client, status(http.StatusForbidden), "/closed")
	s := m.expect("a good token", client, status(http.StatusOK), "/closed", bearer(inline.token(nil))...)
	m.Expect(s.echo.Header.Get("x-sub") == "someone", "the app was sent %v", s.echo.Header)
	m.Expect(strings.HasPrefix(s.echo.Header.Get("authorization"), "Bearer "), "the token was not forwarded: %v", s.echo.Header)
	m.expect("a good token of an identity that may not", other.Client(appHTTP, true), status(http.StatusForbidden), "/closed", bearer(inline.token(nil))...)
	for what, token := range map[string]string{
		"a token that has expired":     inline.token(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"a token that is not yet good": inline.token(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
		"a token of another key":       stranger.token(nil),
		"a token of an unknown issuer": inline.token(map[string]any{"iss": "nobody.test"}),
		"a token of broken keys":       inline.token(map[string]any{"iss": "broken.test"}),
		"what is not a token":          "not.a.token",
	} {
		s := m.expect(what, client, status(http.StatusUnauthorized), "/open", bearer(token)...)
		m.Expect(strings.HasPrefix(s.header.Get("www-authenticate"), "Bearer "), "%s: %v", what, s.header)
	}
	good := fetched.token(map[string]any{"aud": "app"})
	m.expect("a token by keys that were fetched", client, status(http.StatusOK), "/closed", "x-token", "token "+good)
	m.expect("a token in a parameter", client, status(http.StatusOK), "/closed?token="+good)
	m.expect("a token for somebody else", client, status(http.StatusForbidden), "/open", "x-token", "token "+fetched.token(map[string]any{"aud": "other"}))
	m.expect("a claim", client, status(http.StatusOK), "/staff", bearer(inline.token(map[string]any{"groups": []string{"guests", "staff"}}))...)
	m.expect("a claim that is not enough", client, status(http.StatusForbidden), "/staff", bearer(inline.token(map[string]any{"groups": []string{"guests"}}))...)
	m.finish()
}

// waypointRemoteKeys: the proxy fetches an issuer's keys itself, from a service of the mesh; while there are none, only
// what has a token waits for them.
func waypointRemoteKeys(m *mesh) {
	backend := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, backend)
	remote := newIssuer(m.T, "remote.test")
	var answer atomic.Value
	answer.Store("these are no keys")
	keys := m.app("keys-0", false, "service: keys, app: keys, version: v1")
	keys.handle = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/keys" {
			fmt.Fprint(w, answer.Load())
		}
		return r.URL.Path == "/keys"
	}
	m.serviceOf("keys", "10.96.0.30", "{name: http, port: 80, targetPort: 8080}", "{name: http, port: 8080, protocol: TCP}", "", []*pod{keys.pod})
	// Istiod tells a waypoint of the services of its own policies only; this is how a user names one more.
	m.istiod.Apply(`
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: keys, namespace: default, annotations: {envoyfilter.istio.io/referenced-services: default/keys.default.svc.cluster.local}}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: app, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: app}]
  jwtRules: [{issuer: remote.test, jwksUri: "http://keys.default.svc.cluster.local/keys"}]
`)
	m.start()
	_, z := m.client("curl")
	client := z.Client(appHTTP, true)
	load := m.Load(kit.LoadOptions{URL: "http://" + appHost + "/", Dial: dialTo(z, appHTTP), Clients: 2})
	token := []string{"authorization", "Bearer " + remote.token(nil)}
	m.expect("keys that are none", client, status(http.StatusUnauthorized), "/", token...)
	m.Expect(keys.hits.Load() > 0, "nobody asked for keys")
	answer.Store(remote.keys())
	m.expect("good keys", client, from("app-0"), "/", token...)
	asked := keys.hits.Load()
	for range 20 {
		m.expect("good keys", client, from("app-0"), "/", token...)
	}
	m.Expect(keys.hits.Load()-asked <= 2, "keys were asked for %d more times", keys.hits.Load()-asked)
	m.expect("a token of another key", client, status(http.StatusUnauthorized), "/", "authorization", "Bearer "+newIssuer(m.T, "remote.test").token(nil))
	load.StopClean(m.T)
	m.finish()
}

// authorizer is an external authorization service: what it says is in the request's x-ask header.
type authorizer struct {
	auth.UnimplementedAuthorizationServer
	asked atomic.Int64
	hang  chan struct{} // closed when the scenario ends
}

func (a *authorizer) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	a.asked.Add(1)
	http := request.GetAttributes().GetRequest().GetHttp()
	switch http.GetHeaders()["x-ask"] {
	case "allow":
		return &auth.CheckResponse{
			Status: &rpc.Status{Code: int32(codes.OK)},
			HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{
				Headers:              []*core.HeaderValueOption{{Header: &core.HeaderValue{Key: "x-checked", Value: "by gRPC " + http.GetPath()}}},
				ResponseHeadersToAdd: []*core.HeaderValueOption{{Header: &core.HeaderValue{Key: "x-answer-checked", Value: "yes"}}},
			}},
		}, nil
	case "hang":
		select {
		case <-ctx.Done():
		case <-a.hang:
		}
	}
	return &auth.CheckResponse{
		Status: &rpc.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &envoytype.HttpStatus{Code: envoytype.StatusCode_PaymentRequired}, Body: "not without paying",
			Headers: []*core.HeaderValueOption{{Header: &core.HeaderValue{Key: "x-why", Value: "unpaid"}}},
		}},
	}, nil
}

const authProviders = `
extensionProviders:
- name: by-grpc
  envoyExtAuthzGrpc: {service: authz.default.svc.cluster.local, port: 9191, timeout: 1s, statusOnError: "503"}
- name: by-http
  envoyExtAuthzHttp:
    service: authz.default.svc.cluster.local
    port: 80
    pathPrefix: /check
    includeRequestHeadersInCheck: [x-ask]
    headersToUpstreamOnAllow: [x-checked]
    headersToDownstreamOnDeny: [x-why]
`

// waypointExtAuthz: policies whose action is CUSTOM ask a service by gRPC or by HTTP; one that hangs costs
// its own requests only.
func waypointExtAuthz(m *mesh) {
	one := m.app("app-0", true, "service: app, app: app, version: v1")
	m.service("app", appVIP, one)
	byHTTP := m.app("authz-0", false, "service: authz, app: authz, version: v1")
	byHTTP.handle = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("x-ask") == "allow" && strings.HasPrefix(r.URL.Path, "/check/http") {
			w.Header().Set("x-checked", "by HTTP")
			return true
		}
		w.Header().Set("x-why", "unpaid")
		w.WriteHeader(http.StatusPaymentRequired)
		fmt.Fprint(w, "not without paying")
		return true
	}
	byGRPC := &authorizer{hang: make(chan struct{})}
	m.Cleanup(func() { close(byGRPC.hang) })
	listener, err := net.Listen("tcp", byHTTP.ip+":9191")
	m.OK(err, "authorization service")
	server := grpc.NewServer()
	auth.RegisterAuthorizationServer(server, byGRPC)
	go func() { _ = server.Serve(listener) }()
	m.Cleanup(server.Stop)
	m.serviceOf("authz", "10.96.0.31", "{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 9191, targetPort: 9191}",
		"{name: http, port: 8080, protocol: TCP}, {name: grpc, port: 9191, protocol: TCP}", "", []*pod{byHTTP.pod})
	for _, how := range []string{"grpc", "http"} {
		m.istiod.Apply(fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: by-%[1]s, namespace: default}
spec:
  targetRefs: [{kind: Service, group: "", name: %[2]s}]
  action: CUSTOM
  provider: {name: by-%[1]s}
  rules: [{to: [{operation: {paths: ["/%[1]s*"]}}]}]
`, how, map[string]string{"grpc": "app", "http": "web"}[how]))
	}
	m.service("web", "10.96.0.32", one)
	m.start()
	_, z := m.client("curl")
	client, web := z.Client(appHTTP, true), z.Client("10.96.0.32:80", true)

	m.expect("a path that is not asked about", client, from("app-0"), "/free")
	m.Expect(byGRPC.asked.Load() == 0, "the service was asked about a path that is free")
	s := m.expect("allowed by gRPC", client, from("app-0"), "/grpc/x", "x-ask", "allow")
	m.Expect(s.echo.Header.Get("x-checked") == "by gRPC /grpc/x", "the app was sent %v", s.echo.Header)
	m.Expect(s.header.Get("x-answer-checked") == "yes", "the answer has %v", s.header)
	s = m.expect("denied by gRPC", client, status(http.StatusPaymentRequired), "/grpc/x")
	m.Expect(s.body == "not without paying" && s.header.Get("x-why") == "unpaid", "denied with %q %v", s.body, s.header)
	s = m.expect("allowed by HTTP", web, from("app-0"), "/http/x", "x-ask", "allow")
	m.Expect(s.echo.Header.Get("x-checked") == "by HTTP", "the app was sent %v", s.echo.Header)
	s = m.expect("denied by HTTP", web, status(http.StatusPaymentRequired), "/http/x")
	m.Expect(s.body == "not without paying" && s.header.Get("x-why") == "unpaid", "denied with %q %v", s.body, s.header)

	// A service that hangs: its requests end after the provider's second, others do not notice.
	load := m.Load(kit.LoadOptions{URL: "http://" + appHost + "/free", Dial: dialTo(z, appHTTP)})
	before := one.hits.Load()
	began := time.Now()
	s, err = ask(client, appHost, "/grpc/hang", "x-ask", "hang")
	m.OK(err, "a request whose authorization hangs")
	m.Expect(s.status == http.StatusServiceUnavailable, "a request whose authorization hangs: %d %s", s.status, s.body)
	m.Expect(time.Since(began) < 5*time.Second, "it took %v", time.Since(began))
	m.expect("the next one", client, from("app-0"), "/grpc/x", "x-ask", "allow")
	m.Expect(one.hits.Load() > before, "nothing else was answered")
	load.StopClean(m.T)
	m.finish()
}
