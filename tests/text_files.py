"""Sound files of text formats that tests read, or damage."""

import json

TEX = r"""% a comment with \section{No}
\documentclass[a4paper]{article}
\title{On the \emph{Tides} of Gr\"unholm}
\begin{document}
\maketitle
\begin{abstract}
We measure 50\% of all\footnote{At noon.} % dropped
tides.
\end{abstract}

\section{Introduction}\label{sec:intro}
As Knuth~\cite{knuth84} said, na\"{\i}ve --- ``good'' M\"oller, caf\'e, \O{}resund.
See \href{http://x.org/a%20b}{the page} or \url{http://y.org/%20}.
\begin{equation}
  E = mc^2
\end{equation}
\subsection*{The \textbf{method} of $n$ steps}
\begin{itemize}[noitemsep]
  \item First \textit{thing}
\end{itemize}
\begin{verbatim}
% verbatim \section{Not}
\end{verbatim}
\begin{tabular}{l|r}
Port & Fare \\ \hline
\end{tabular}
\begin{theorem}[Cauchy]
Last $a_{n} < b$.
\end{theorem}
\end{document}
after
"""

SRT = """1
00:00:01,000 --> 00:00:03,500
<i>We went ashore</i>
at the {\\an8}north pier.

2
00:00:03,600 --> 00:00:06,000 X1:100
Nobody knew us &amp; we knew nobody

3
00:00:20,000 --> 00:00:22,000
Morning came.
4
01:02:03,000 --> 01:02:04,000
The end.
"""

MAIL = b"""Return-Path: <joerg@example.org>
Received: from mx by localhost;
 Tue, 2 Apr 2024 10:11:13 +0200
From: =?utf-8?q?J=C3=B6rg?= Harbour <joerg@example.org>
To: "Lee, Ann" <ann@example.org>,
 crew@example.org
Subject: =?iso-8859-1?Q?Gr=FC=DFe_vom?= =?iso-8859-1?Q?_Hafen?=
Date: Tue, 2 Apr 2024 10:11:12 +0200
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="outer"

This is a message with parts.
--outer
Content-Type: multipart/alternative; boundary="inner"

--inner
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Dear crew,

the ferry leaves at noon, and whoever is late has to row. The t=FCr of the=
 shed is open.
Yours, J=F6rg
--inner
Content-Type: text/html; charset=utf-8

<html><body><p>HTML body</p></body></html>
--inner--

--outer
Content-Type: application/pdf; name="=?utf-8?B?RmFocnBsw6RuZS5wZGY=?="
Content-Disposition: attachment
Content-Transfer-Encoding: base64

JVBERi0xLjQK
--outer
Content-Type: text/csv; charset=utf-8
Content-Disposition: attachment; filename*=utf-8''Fahrpl%C3%A4ne.csv
Content-Transfer-Encoding: base64

UG9ydCxGYXJlCk5vcnRoLDUK
--outer
Content-Type: message/rfc822

From: ann@example.org
Subject: Asked before

When does it leave?
--outer--
"""

MBOX = """From ann@example.org Tue Apr  2 10:11:12 2024
From: ann@example.org
Subject: First

From here to the pier it is a mile.

From there on as well.

From - Wed Apr 03 09:00:00 2024
From: bo@example.org
Subject: Second
Content-Transfer-Encoding: 8bit

>From now on: naïve words.
"""

RTF = (
    rb"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fnil\fcharset0 Arial;}}{\info{\title Hidden}}\pard "
    rb"Gr\'fc\'dfe \b vom\b0  "
    rb'Hafen\u8212?end.\par Second {\field{\*\fldinst{HYPERLINK "http://x.org"}}{\fldrslt{\ul link}}}.\par'
    rb"{\pict\pngblip "
    + b"89504e470d0a1a0a" * 5000
    + rb"}\trowd Port\cell Fare\cell\row North\cell 5\cell\row\pard End.\par}"
)

ORG = """#+TITLE: Harbour
* Ferries
** Fares :money:
The fare to the mill is 5.
#+BEGIN_SRC python
fare = 5
#+END_SRC
"""
RST = """Harbour
=======

.. note:: The ferry waits for no one.

Fares
-----

The fare to the mill is 5::

    fare = 5
"""
CSV = """port,fare,day
mill,5,Monday
"north pier",7,"Tuesday, noon"
"""


def notebook(*cells: object) -> str:
    whole = {"cells": cells, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False)
