"""TLS: certificates, contexts, and a protocol between any transport and any asyncio protocol.

    hello        the first message of a client, read before OpenSSL sees it
    engine       one connection of OpenSSL on memory BIOs: octets in, octets out
    contexts     what a server offers, by name: certificates, ALPN, tickets that rotate
    protocol     asyncio's face on an engine
    credential   a certificate chain and its key, judged before it is used
    authority    the local certificate authority of a first run
    acme, dane   certificates from elsewhere, and what DNS tells of them

Nothing is imported here, so that whoever needs one of these pays for that one alone. This package
never imports net, dns or http.
"""
